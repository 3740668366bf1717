-- What machines that start from the network get. A machine without a row gets the menu.

CREATE TABLE pxe_rules (
    machine TEXT PRIMARY KEY, -- a MAC address, 52:54:00:12:34:56, or an SMBIOS UUID, lower case
    policy TEXT NOT NULL CHECK (policy IN ('ignore', 'boot-once', 'boot-always')),
    actor TEXT NOT NULL,
    set_at INTEGER NOT NULL,
    expires_at INTEGER
) STRICT;
