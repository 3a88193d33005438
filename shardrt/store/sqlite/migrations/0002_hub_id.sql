ALTER TABLE hub ADD COLUMN id TEXT NOT NULL DEFAULT '';

UPDATE hub SET id = lower(hex(randomblob(16)));
