-- Limits of what runs, and profiles of tasks.

CREATE TABLE limits (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    value TEXT NOT NULL -- limits::Limits
) STRICT;

ALTER TABLE tasks ADD COLUMN bytes_per_second INTEGER; -- NULL: as fast as it goes

CREATE TABLE profiles (
    name TEXT PRIMARY KEY,
    settings TEXT NOT NULL, -- tasks::Settings
    is_default INTEGER NOT NULL DEFAULT 0,
    changed_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX profiles_default ON profiles (is_default) WHERE is_default;
