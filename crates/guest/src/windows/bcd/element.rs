//! Elements: their types, and what the registry's values mean in each format.
//!
//! A type is a number of 32 bits: the class that uses the element (highest four bits), the format of its value (the next
//! four), and which one it is. Source: Microsoft's `BcdElementType` and the provider's classes of elements; how they are
//! stored: the stores of the test data.

use std::fmt;

use serde::{Serialize, Serializer};

use super::device::DeviceElement;
use crate::hexadecimal;
use crate::windows::Guid;
use crate::windows::hive::{Data, ValueType};

/// The type of an element; prints as the name of its key, eight hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementType(pub u32);

/// Who uses an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementClass {
    /// Every application and device.
    Library,
    /// One kind of application.
    Application,
    /// A device.
    Device,
    /// Templates of which stores are made.
    Template,
    /// A maker of hardware, or nobody that is known.
    Other,
}

/// How an element's value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// A device.
    Device,
    /// Text.
    String,
    /// The GUID of an object.
    Object,
    /// GUIDs of objects.
    ObjectList,
    /// 64 bits.
    Integer,
    /// A byte.
    Boolean,
    /// Numbers of 64 bits.
    IntegerList,
    /// Bytes.
    Binary,
}

impl ElementType {
    /// The application's device.
    pub const APPLICATION_DEVICE: Self = Self(0x1100_0001);
    /// The application's path.
    pub const APPLICATION_PATH: Self = Self(0x1200_0002);
    /// What menus show.
    pub const DESCRIPTION: Self = Self(0x1200_0004);
    /// Whether nothing is drawn: set where a machine has no screen.
    pub const GRAPHICS_MODE_DISABLED: Self = Self(0x1600_0046);
    /// A loader's system partition.
    pub const OS_DEVICE: Self = Self(0x2100_0001);
    /// The Windows folder.
    pub const SYSTEM_ROOT: Self = Self(0x2200_0002);
    /// What the boot manager starts by itself.
    pub const DEFAULT_OBJECT: Self = Self(0x2300_0003);

    /// The type that the name of a key says.
    pub fn parse(name: &str) -> Option<Self> {
        let is_hexadecimal = name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hexadecimal.then(|| u32::from_str_radix(name, 16).ok()).flatten().map(Self)
    }

    /// Who uses it.
    pub fn class(self) -> ElementClass {
        match self.0 >> 28 {
            1 => ElementClass::Library,
            2 => ElementClass::Application,
            3 => ElementClass::Device,
            4 => ElementClass::Template,
            _ => ElementClass::Other,
        }
    }

    /// How its value is stored; `None` where that is not known.
    pub fn format(self) -> Option<Format> {
        Some(match self.0 >> 24 & 0xf {
            1 => Format::Device,
            2 => Format::String,
            3 => Format::Object,
            4 => Format::ObjectList,
            5 => Format::Integer,
            6 => Format::Boolean,
            7 => Format::IntegerList,
            8 => Format::Binary,
            _ => return None,
        })
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl Serialize for ElementType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What an element says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "format", content = "value", rename_all = "snake_case")]
pub enum Value {
    /// A device.
    Device(DeviceElement),
    /// Text.
    String(String),
    /// An object.
    Object(Guid),
    /// Objects.
    ObjectList(Vec<Guid>),
    /// A number.
    Integer(u64),
    /// Yes or no.
    Boolean(bool),
    /// Numbers.
    IntegerList(Vec<u64>),
    /// Bytes, or what does not follow the format that its type names.
    #[serde(serialize_with = "hexadecimal::serialize")]
    Binary(Vec<u8>),
}

impl Value {
    /// What `data` say for an element of this type.
    pub fn of(kind: ElementType, data: &Data) -> Self {
        kind.format()
            .and_then(|format| Self::in_format(format, data))
            .unwrap_or_else(|| Self::Binary(data.bytes.clone()))
    }

    fn in_format(format: Format, data: &Data) -> Option<Self> {
        let is_binary = data.kind == ValueType::BINARY;
        Some(match format {
            Format::Device => Self::Device(is_binary.then(|| DeviceElement::parse(&data.bytes))??),
            Format::String => Self::String(data.text()?),
            Format::Object => Self::Object(data.text()?.parse().ok()?),
            Format::ObjectList => {
                Self::ObjectList(data.texts()?.iter().map(|text| text.parse().ok()).collect::<Option<_>>()?)
            }
            Format::Integer => Self::Integer(is_binary.then(|| integer(&data.bytes))??),
            Format::Boolean if is_binary && data.bytes.len() == 1 => Self::Boolean(data.bytes[0] != 0),
            Format::IntegerList if is_binary && data.bytes.len().is_multiple_of(8) => {
                Self::IntegerList(data.bytes.chunks_exact(8).filter_map(integer).collect())
            }
            Format::Boolean | Format::IntegerList => return None,
            Format::Binary => Self::Binary(data.bytes.clone()),
        })
    }

    /// As Windows stores it.
    pub fn to_data(&self) -> Data {
        match self {
            Self::Device(device) => Data::binary(device.to_bytes()),
            Self::String(text) => Data::sz(text),
            Self::Object(guid) => Data::sz(&guid.to_string()),
            Self::ObjectList(guids) => {
                let texts: Vec<String> = guids.iter().map(Guid::to_string).collect();
                Data::multi_sz(texts.iter().map(String::as_str))
            }
            Self::Integer(number) => Data::binary(number.to_le_bytes()),
            Self::Boolean(yes) => Data::binary([u8::from(*yes)]),
            Self::IntegerList(numbers) => {
                Data::binary(numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>())
            }
            Self::Binary(found) => Data::binary(found.clone()),
        }
    }
}

fn integer(found: &[u8]) -> Option<u64> {
    found.try_into().ok().map(u64::from_le_bytes)
}
