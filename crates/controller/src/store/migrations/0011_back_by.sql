-- When the machine of a task must have its own system again.

ALTER TABLE tasks ADD COLUMN back_by TEXT; -- schedule::BackBy
