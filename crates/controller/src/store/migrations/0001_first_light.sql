-- Machines that an operator approved, the agent keys that speak for them, tasks, and two logs.
-- Moments are milliseconds since 1970-01-01 UTC; JSON is text.

CREATE TABLE machines (
    id TEXT PRIMARY KEY,
    smbios_uuid TEXT,
    smbios_serial TEXT,
    macs TEXT NOT NULL, -- JSON array of text, sorted
    report TEXT NOT NULL, -- machine::Machine
    booted TEXT NOT NULL, -- how the agent was started: boot-image, live
    agent_version TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL
) STRICT;

-- A key is in here only when it was approved; a boot image has a new one at each start. Its machine is known from its
-- first report on.
CREATE TABLE agent_keys (
    fingerprint TEXT PRIMARY KEY,
    machine TEXT REFERENCES machines (id) ON DELETE CASCADE,
    label TEXT NOT NULL, -- what the machine said of itself when it was approved
    approved_at INTEGER NOT NULL
) STRICT;
CREATE INDEX agent_keys_by_machine ON agent_keys (machine);

CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    machine TEXT NOT NULL REFERENCES machines (id),
    output TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    step TEXT,
    done_bytes INTEGER NOT NULL DEFAULT 0,
    total_bytes INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    outcome TEXT,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER
) STRICT;
CREATE INDEX tasks_by_creation ON tasks (created_at);
-- Two tasks never write the same result.
CREATE UNIQUE INDEX tasks_active_result ON tasks (output, name) WHERE state IN ('queued', 'running');

CREATE TABLE task_log (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    level TEXT NOT NULL CHECK (level IN ('info', 'warning', 'error')),
    message TEXT NOT NULL
) STRICT;
CREATE INDEX task_log_by_task ON task_log (task, id);

CREATE TABLE audit_log (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
