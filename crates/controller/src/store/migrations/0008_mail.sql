-- E-mails about tasks. They are put into the queue by the same write that changes the task, so that none is lost and no task
-- waits for a mail server.

CREATE TABLE mail_wanted (
    event TEXT PRIMARY KEY CHECK (event IN ('done', 'failed', 'waiting')) -- none: nobody wants mail
) STRICT, WITHOUT ROWID;

CREATE TABLE mails (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    event TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL, -- not tried before
    attempts INTEGER NOT NULL DEFAULT 0,
    ended_at INTEGER, -- sent, or given up
    error TEXT -- of the last attempt
) STRICT;
CREATE INDEX mails_due ON mails (due_at) WHERE ended_at IS NULL;

-- At most a thousand wait: a mail server that never works costs no more.
CREATE TRIGGER mail_at_the_end AFTER UPDATE OF state ON tasks
WHEN NEW.state IN ('done', 'failed') AND OLD.state <> NEW.state
    AND EXISTS (SELECT 1 FROM mail_wanted WHERE event = NEW.state)
    AND (SELECT count(*) FROM mails WHERE ended_at IS NULL) < 1000
BEGIN
    INSERT INTO mails (task, event, created_at, due_at) VALUES (NEW.id, NEW.state,
        CAST(unixepoch('subsec') * 1000 AS INTEGER), CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;

-- A machine that comes and goes is told once an hour.
CREATE TRIGGER mail_at_a_question AFTER UPDATE OF waits_for ON tasks
WHEN NEW.waits_for = 'operator' AND OLD.waits_for IS NOT 'operator'
    AND EXISTS (SELECT 1 FROM mail_wanted WHERE event = 'waiting')
    AND NOT EXISTS (SELECT 1 FROM mails WHERE task = NEW.id AND event = 'waiting'
        AND created_at > CAST(unixepoch('subsec') * 1000 AS INTEGER) - 3600000)
    AND (SELECT count(*) FROM mails WHERE ended_at IS NULL) < 1000
BEGIN
    INSERT INTO mails (task, event, created_at, due_at) VALUES (NEW.id, 'waiting',
        CAST(unixepoch('subsec') * 1000 AS INTEGER), CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;
