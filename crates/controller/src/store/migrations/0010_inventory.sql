-- What operators say of machines, machines that were added by their address, groups, and what happened to each machine.

CREATE TABLE machine_groups (
    name TEXT PRIMARY KEY COLLATE NOCASE,
    created_at INTEGER NOT NULL
) STRICT;

ALTER TABLE machines ADD COLUMN given_name TEXT;
ALTER TABLE machines ADD COLUMN group_name TEXT COLLATE NOCASE
    REFERENCES machine_groups (name) ON UPDATE CASCADE ON DELETE SET NULL;
ALTER TABLE machines ADD COLUMN note TEXT NOT NULL DEFAULT '';
ALTER TABLE machines ADD COLUMN address TEXT; -- where an operator said that it is: an IP address or a host name
ALTER TABLE machines ADD COLUMN reach TEXT NOT NULL DEFAULT 'unknown' CHECK (reach IN ('ssh', 'winrm', 'unknown'));
ALTER TABLE machines ADD COLUMN reported INTEGER NOT NULL DEFAULT 1; -- 0: it was added, and no agent of it came yet
CREATE INDEX machines_by_group ON machines (group_name);
CREATE INDEX machines_not_reported ON machines (id) WHERE reported = 0;

CREATE TABLE machine_history (
    id INTEGER PRIMARY KEY,
    machine TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    event TEXT NOT NULL, -- store::HistoryEvent
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX machine_history_by_machine ON machine_history (machine, id);

-- The newest five hundred lines of each machine are kept.
CREATE TRIGGER machine_history_in_bounds AFTER INSERT ON machine_history
BEGIN
    DELETE FROM machine_history WHERE machine = NEW.machine AND id <=
        (SELECT id FROM machine_history WHERE machine = NEW.machine ORDER BY id DESC LIMIT 1 OFFSET 500);
END;
