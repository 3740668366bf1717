//! `vconverter backup` and `vconverter restore`.

use controller::DataDirectory;
use controller::backup::{BackupOptions, create};
use machine::ByteCount;

use crate::arguments::{Backup, Restore};
use crate::failure::Result;

pub(crate) fn backup(arguments: &Backup, directory: &DataDirectory, json: bool) -> Result<()> {
    let options = BackupOptions { without_drivers: arguments.without_drivers, force: arguments.force };
    let made = create(directory, &arguments.file, options)?;
    if json {
        return crate::print_json(&made);
    }
    let (size, files, schema) = (ByteCount(made.size), made.manifest.files.len(), made.manifest.schema);
    crate::print(&format!(
        "{}: {size}, {files} files, schema version {schema}; it holds the controller's secrets\n",
        made.file.display()
    ))
}

pub(crate) fn restore(arguments: &Restore, directory: DataDirectory, json: bool) -> Result<()> {
    let shown = directory.path().display().to_string();
    let restored = controller::backup::restore(directory, &arguments.file, arguments.force)?;
    if json {
        return crate::print_json(&restored);
    }
    let manifest = &restored.manifest;
    let mut text = format!("{shown}: the state of {}, by vconverter {}\n", manifest.created_at, manifest.program);
    if let Some(before) = &restored.before {
        text.push_str(&format!("what was here before: {}\n", before.display()));
    }
    if restored.unfinished_tasks > 0 {
        let tasks = restored.unfinished_tasks;
        text.push_str(&format!("tasks that go on or begin with the next `vconverter serve`: {tasks}\n"));
    }
    crate::print(&text)
}
