-- Automated Remote Cold Cloning: what was asked for, how it went, and credentials that are bound to a machine and a task.

ALTER TABLE tasks ADD COLUMN rcc TEXT; -- rcc::Rcc
ALTER TABLE tasks ADD COLUMN course TEXT; -- rcc::Course
ALTER TABLE enrolment_tokens ADD COLUMN machine TEXT; -- the only one that it is good for
ALTER TABLE enrolment_tokens ADD COLUMN task TEXT;
