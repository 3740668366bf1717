-- Steps of tasks, tasks that are paused, and who works on a task.

ALTER TABLE tasks ADD COLUMN paused INTEGER NOT NULL DEFAULT 0; -- an operator paused it: running, it comes to a safe point; queued, it stays there
-- Whoever runs a task owns it until its lease ends, and raises the epoch. What is written for a task is only written under
-- a lease that holds.
ALTER TABLE tasks ADD COLUMN owner TEXT;
ALTER TABLE tasks ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN lease_until INTEGER;

CREATE TABLE task_steps (
    task TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    position INTEGER NOT NULL, -- from 0
    step TEXT NOT NULL, -- conversion::Step
    state TEXT NOT NULL CHECK (state IN ('pending', 'running', 'done', 'failed', 'interrupted', 'skipped')),
    started_at INTEGER,
    finished_at INTEGER,
    PRIMARY KEY (task, position),
    UNIQUE (task, step)
) STRICT, WITHOUT ROWID;
