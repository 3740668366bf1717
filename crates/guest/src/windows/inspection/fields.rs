//! Values of keys that may be absent, made fit for an operator's screen: short, and without control characters.

use crate::Result;
use crate::tree::FileTree;
use crate::windows::hive::{Key, Name, units};
use crate::windows::path::Paths;
use crate::windows::system::Windows;

/// Longest text that is told, in characters.
const TEXT_MAX: usize = 1024;
/// Subkeys and texts of one key that are looked at.
pub(super) const ITEMS_MAX: usize = 65_536;

/// An installation and its files.
pub(super) struct Reader<'w> {
    pub(super) windows: &'w Windows,
    pub(super) tree: &'w dyn FileTree,
    pub(super) paths: Paths<'w>,
}

impl<'w> Reader<'w> {
    pub(super) fn new(windows: &'w Windows, tree: &'w dyn FileTree) -> Self {
        Self { windows, tree, paths: Paths::new(tree) }
    }

    /// `Control\path` of the control set in use.
    pub(super) fn control(&self, path: &str) -> Result<Fields<'w>> {
        Ok(Fields(self.windows.current_key(&format!("Control\\{path}"))?))
    }

    /// `Services\path` of the control set in use.
    pub(super) fn service(&self, path: &str) -> Result<Fields<'w>> {
        Ok(Fields(self.windows.current_key(&format!("Services\\{path}"))?))
    }

    /// `path` of the control set in use.
    pub(super) fn current(&self, path: &str) -> Result<Fields<'w>> {
        Ok(Fields(self.windows.current_key(path)?))
    }

    /// `path` of SOFTWARE.
    pub(super) fn software(&self, path: &str) -> Result<Fields<'w>> {
        Ok(Fields(self.windows.software_key(path)?))
    }

    /// `path` of SYSTEM.
    pub(super) fn system(&self, path: &str) -> Result<Fields<'w>> {
        Ok(Fields(self.windows.system.open(path).map_err(|error| error.at(&self.windows.system_path))?))
    }

    /// Whether there is something at `path` of the tree, in any case.
    pub(super) fn is_file(&self, path: &str) -> Result<bool> {
        Ok(self.paths.resolve(path)?.is_some())
    }
}

/// A key, or none.
#[derive(Clone, Copy)]
pub(super) struct Fields<'w>(Option<Key<'w>>);

impl<'w> Fields<'w> {
    pub(super) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// A text that says something.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>> {
        Ok(self.0.map(|key| key.text(name)).transpose()?.flatten().and_then(|text| printable(&text)))
    }

    /// A text for people: of `@file.inf,%name%;Text` its text, of `@file.dll,-1` nothing.
    pub(super) fn label(&self, name: &str) -> Result<Option<String>> {
        let text = self.text(name)?;
        Ok(text.and_then(|text| match text.strip_prefix('@') {
            Some(rest) => rest.split_once(';').map(|(_, label)| label.to_owned()),
            None => Some(text),
        }))
    }

    /// Texts that say something, of one value with several or with one.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>> {
        let Some(data) = self.0.map(|key| key.data(name)).transpose()?.flatten() else { return Ok(Vec::new()) };
        let texts = data.texts().or_else(|| data.text().map(|text| vec![text])).unwrap_or_default();
        Ok(texts.iter().take(ITEMS_MAX).filter_map(|text| printable(text)).collect())
    }

    /// The texts of a `REG_MULTI_SZ`, empty ones among them: in pairs, as `PendingFileRenameOperations` has them.
    pub(super) fn texts_and_gaps(&self, name: &str) -> Result<Vec<String>> {
        let Some(bytes) = self.bytes(name)? else { return Ok(Vec::new()) };
        let units = units(&bytes);
        let mut texts: Vec<String> = units
            .split(|&unit| unit == 0)
            .take(ITEMS_MAX)
            .map(|text| printable(&String::from_utf16_lossy(text)).unwrap_or_default())
            .collect();
        while texts.last().is_some_and(String::is_empty) {
            texts.pop();
        }
        Ok(texts)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u32>> {
        Ok(self.0.map(|key| key.dword(name)).transpose()?.flatten())
    }

    /// Whether a number is there and not zero; `None` where there is none.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>> {
        Ok(self.number(name)?.map(|number| number != 0))
    }

    pub(super) fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.map(|key| key.data(name)).transpose()?.flatten().map(|data| data.bytes))
    }

    pub(super) fn child(&self, path: &str) -> Result<Self> {
        Ok(Self(self.0.map(|key| key.open_path(path)).transpose()?.flatten()))
    }

    /// The subkeys with their names; those whose name no screen could show are passed over.
    pub(super) fn children(&self) -> Result<Vec<(String, Self)>> {
        let Some(key) = self.0 else { return Ok(Vec::new()) };
        let named = |key: Result<Key<'w>>| -> Result<Option<(String, Self)>> {
            let key = key?;
            Ok(shown_name(key.name()?).map(|name| (name, Self(Some(key)))))
        };
        key.subkeys()?.take(ITEMS_MAX).filter_map(|key| named(key).transpose()).collect()
    }

    /// The names of the values, but for those that no screen could show.
    pub(super) fn value_names(&self) -> Result<Vec<String>> {
        let Some(key) = self.0 else { return Ok(Vec::new()) };
        let names = key.values()?.take(ITEMS_MAX).map(|value| Ok(shown_name(value?.name()?)));
        names.filter_map(Result::transpose).collect()
    }
}

/// A name as text. One with control characters or without a meaning is none of Windows', and would have to be told as another.
fn shown_name(name: Name) -> Option<String> {
    let text = name.to_string();
    (!text.contains(|c: char| c.is_control() || c == '\u{fffd}')).then_some(text)
}

/// `text` without what a screen could not show; `None` where nothing is left.
pub(super) fn printable(text: &str) -> Option<String> {
    let shown: String = text.chars().filter(|c| !c.is_control() && *c != '\u{fffd}').take(TEXT_MAX).collect();
    let shown = shown.trim();
    (!shown.is_empty()).then(|| shown.to_owned())
}

/// `yes`, `no`, or that nothing says so.
pub(super) fn answer(flag: Option<bool>) -> &'static str {
    match flag {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not set",
    }
}
