-- Cold Cloning Ready: what a machine in the boot image was started from, and since when it is there. And tasks that wait
-- for their machine to be there.

ALTER TABLE machines ADD COLUMN boot_medium TEXT; -- iso, pxe, uefi-http; only while booted is boot-image
-- The agent's key that it came with, which lives as long as the boot image runs: a link that was cut begins nothing anew.
ALTER TABLE machines ADD COLUMN ready_key TEXT;
ALTER TABLE machines ADD COLUMN ready_since INTEGER;

-- A queued task with one of these is not begun: 'machine' waits until its machine is Cold Cloning Ready, 'operator' for
-- an operator's yes to the machine that is.
ALTER TABLE tasks ADD COLUMN waits_for TEXT CHECK (waits_for IN ('machine', 'operator'));
ALTER TABLE tasks ADD COLUMN batch TEXT; -- tasks that were asked for together and are of one kind
CREATE INDEX tasks_by_waiting ON tasks (machine) WHERE waits_for IS NOT NULL;
