-- Enrolment: one-time tokens that approve a machine, and the certificates that agents were given.

CREATE TABLE enrolment_tokens (
    id TEXT PRIMARY KEY, -- e- and eight hexadecimal digits
    secret TEXT NOT NULL UNIQUE, -- SHA-256 of it
    label TEXT NOT NULL, -- what it is for
    actor TEXT NOT NULL, -- who made it
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER,
    used_by TEXT, -- the agent's key
    revoked_at INTEGER
) STRICT;

-- The end of the newest certificate that the agent has said it keeps: without one its key is nothing from then on. NULL
-- where it never kept one.
ALTER TABLE agent_keys ADD COLUMN certified_until INTEGER;
