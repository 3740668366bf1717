-- Schedules: when a task is to be begun, and what happened of that so far.

ALTER TABLE tasks ADD COLUMN plan TEXT; -- schedule::Plan; without one a task is begun as soon as there is room
ALTER TABLE tasks ADD COLUMN due_at INTEGER; -- a queued task with this is looked at again then, and not begun before
