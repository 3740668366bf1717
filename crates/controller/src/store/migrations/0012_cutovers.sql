-- Cutovers: the source of a task is switched off, and its VM takes its place.

CREATE TABLE cutovers (
    task TEXT PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    state TEXT NOT NULL, -- store::CutoverState
    connection TEXT NOT NULL, -- of libvirt: qemu:///system
    error TEXT,
    changed_at INTEGER NOT NULL
) STRICT;
