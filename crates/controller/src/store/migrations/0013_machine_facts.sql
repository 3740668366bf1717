-- What a search looks through of a machine's report, a line each, so that it need not take all reports apart.

ALTER TABLE machines ADD COLUMN facts TEXT NOT NULL DEFAULT '';

UPDATE machines SET facts = (
    SELECT coalesce(group_concat(atom, char(10)), '') FROM json_tree(report)
    WHERE path IN ('$.smbios', '$.guest') OR path LIKE '$.nics%.addresses%'
);
