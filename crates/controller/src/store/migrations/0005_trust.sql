-- Trust: users, their sessions and API tokens, credentials for sources and targets, agents' keys that are revoked.

CREATE TABLE users (
    name TEXT PRIMARY KEY, -- lower case
    role TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'administrator')),
    password TEXT NOT NULL, -- argon2id, as a PHC string
    disabled INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    last_login_at INTEGER
) STRICT;

CREATE TABLE web_sessions (
    token TEXT PRIMARY KEY, -- SHA-256 of it
    user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    address TEXT NOT NULL,
    begun_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL
) STRICT;
CREATE INDEX web_sessions_of_user ON web_sessions (user, begun_at);

CREATE TABLE api_tokens (
    id TEXT PRIMARY KEY, -- k- and eight hexadecimal digits
    token TEXT NOT NULL UNIQUE, -- SHA-256 of it
    name TEXT NOT NULL,
    user TEXT REFERENCES users (name) ON DELETE CASCADE, -- NULL: made over the Unix socket for nobody in particular
    role TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'administrator')),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER,
    revoked_at INTEGER
) STRICT;

CREATE TABLE credentials (
    name TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    user TEXT NOT NULL, -- empty where the kind has none
    sealed BLOB NOT NULL, -- trust::Vault
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;

CREATE TABLE vault (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    salt BLOB, -- of the passphrase; NULL: a key file
    proof BLOB NOT NULL -- a known text, sealed with the key
) STRICT;

ALTER TABLE agent_keys ADD COLUMN revoked_at INTEGER;
