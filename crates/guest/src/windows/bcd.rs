//! Boot configuration data (BCD): the registry hive that tells Windows' boot manager and loaders, from Vista on, what to
//! start and from which partition. It lies in `\Boot\BCD` of the active partition, or in `\EFI\Microsoft\Boot\BCD` of the
//! EFI system partition.
//!
//! A store is read as a whole: objects (keys named by GUIDs below `Objects`) with their type and elements (keys named by
//! types below `Elements`, each with one value `Element`). What its formats do not explain is kept as bytes. Changes are
//! planned as [`RegistryEdit`](crate::windows::RegistryEdit)s with old and new values; nothing is written here.
//!
//! Sources: Microsoft's "Boot Configuration Data (BCD)" WMI provider reference, G. Chappell's pages on BCD, `bcdedit /?`;
//! [`device`] names those of the bytes of device elements.

mod bytes;
pub mod device;
mod element;
mod names;
mod object;
mod rebind;
mod show;

pub use device::{Device, DeviceElement, DeviceKind};
pub use element::{ElementClass, ElementType, Format, Value};
pub use names::element_name;
pub use object::{Application, BOOT_MANAGER, FIRMWARE_BOOT_MANAGER, ObjectClass, ObjectType, well_known_name};
pub use rebind::Misfit;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::Guid;
use super::hive::{Data, Hive, Key};
use crate::{Error, ErrorKind, Result};

/// Objects of one store. Windows' own have a few dozen.
pub const OBJECTS_MAX: usize = 4096;
/// Elements of one object.
pub const ELEMENTS_MAX: usize = 1024;
/// Longest value of an element, in bytes.
pub const ELEMENT_SIZE_MAX: usize = 64 << 10;

/// A store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bcd {
    /// Its objects, sorted by the names of their keys.
    pub objects: Vec<Object>,
    /// What is in it and is no object or element; left alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its GUID.
    pub guid: Guid,
    /// What it is.
    pub kind: ObjectType,
    /// Its elements, sorted by their types.
    pub elements: Vec<Element>,
    /// Its key, relative to the root of the hive.
    pub key: String,
}

/// An element of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Which.
    pub kind: ElementType,
    /// What it says.
    pub value: Value,
    /// As it is stored.
    pub data: Data,
    /// Its key, relative to the root of the hive.
    pub key: String,
}

impl Bcd {
    /// The store in `hive`.
    ///
    /// # Errors
    /// `Malformed` for a hive that is no store, or damaged; `TooLarge` beyond the bounds of this module.
    pub fn read(hive: &Hive) -> Result<Self> {
        let Some(objects) = hive.open("Objects")? else {
            return Err(Error::new(ErrorKind::Malformed, "expected a BCD store, found a hive without the key Objects"));
        };
        if objects.subkey_count() > OBJECTS_MAX {
            let context = format!("a BCD store of {} objects, expected up to {OBJECTS_MAX}", objects.subkey_count());
            return Err(Error::new(ErrorKind::TooLarge, context));
        }
        let mut store = Self { objects: Vec::new(), notes: Vec::new() };
        for key in objects.subkeys()? {
            let key = key?;
            let name = key.name()?.to_string();
            match name.parse() {
                Ok(guid) if name.starts_with('{') => {
                    let object = store.read_object(&key, guid, format!("Objects\\{name}"))?;
                    store.objects.extend(object);
                }
                _ => store.note(&format!("Objects\\{name}"), "its name is no GUID"),
            }
        }
        Ok(store)
    }

    fn read_object(&mut self, key: &Key<'_>, guid: Guid, path: String) -> Result<Option<Object>> {
        let kind = key.open_path("Description")?.map(|description| description.dword("Type")).transpose()?.flatten();
        let Some(kind) = kind.map(ObjectType) else {
            self.note(&path, "it has no Description\\Type");
            return Ok(None);
        };
        let mut object = Object { guid, kind, elements: Vec::new(), key: path };
        let Some(elements) = key.open_path("Elements")? else { return Ok(Some(object)) };
        if elements.subkey_count() > ELEMENTS_MAX {
            let count = elements.subkey_count();
            let context = format!("BCD object {guid}: {count} elements, expected up to {ELEMENTS_MAX}");
            return Err(Error::new(ErrorKind::TooLarge, context));
        }
        for found in elements.subkeys()? {
            let found = found?;
            let name = found.name()?.to_string();
            let path = format!("{}\\Elements\\{name}", object.key);
            let Some(kind) = ElementType::parse(&name) else {
                self.note(&path, "its name is no type");
                continue;
            };
            let Some(value) = found.value("Element")? else {
                self.note(&path, "it has no value");
                continue;
            };
            if value.length() > ELEMENT_SIZE_MAX {
                let context = format!(
                    "BCD element {kind} of {guid}: {} bytes, expected up to {ELEMENT_SIZE_MAX}",
                    value.length()
                );
                return Err(Error::new(ErrorKind::TooLarge, context));
            }
            let data = value.data()?;
            object.elements.push(Element { kind, value: Value::of(kind, &data), data, key: path });
        }
        object.elements.sort_by_key(|element| element.kind);
        Ok(Some(object))
    }

    fn note(&mut self, key: &str, what: &str) {
        self.notes.push(format!("{}: {what}", key.escape_debug()));
    }

    /// The object with this GUID.
    pub fn object(&self, guid: Guid) -> Option<&Object> {
        self.objects.iter().find(|object| object.guid == guid)
    }

    /// What the boot manager starts by itself: `{default}`.
    pub fn default_object(&self) -> Option<&Object> {
        match self.object(BOOT_MANAGER)?.value(ElementType::DEFAULT_OBJECT)? {
            Value::Object(guid) => self.object(*guid),
            _ => None,
        }
    }
}

impl Object {
    /// What its element of this type says.
    pub fn value(&self, kind: ElementType) -> Option<&Value> {
        self.elements.iter().find(|element| element.kind == kind).map(|element| &element.value)
    }

    /// What menus show of it.
    pub fn description(&self) -> Option<&str> {
        match self.value(ElementType::DESCRIPTION)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The name of one of its elements, as `bcdedit` prints it.
    pub fn name_of(&self, kind: ElementType) -> String {
        element_name(kind, self.kind.application()).map_or_else(|| format!("custom:{kind}"), str::to_owned)
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'e> {
            kind: ElementType,
            name: String,
            #[serde(flatten)]
            value: &'e Value,
        }
        let elements: Vec<Shown<'_>> = self
            .elements
            .iter()
            .map(|element| Shown { kind: element.kind, name: self.name_of(element.kind), value: &element.value })
            .collect();
        let mut object = serializer.serialize_struct("Object", 5)?;
        object.serialize_field("guid", &self.guid)?;
        object.serialize_field("name", &well_known_name(self.guid))?;
        object.serialize_field("heading", &object::heading(self.guid, self.kind))?;
        object.serialize_field("kind", &self.kind.to_string())?;
        object.serialize_field("elements", &elements)?;
        object.end()
    }
}
