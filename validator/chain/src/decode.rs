//! SCALE bytes to plain values by the chain's own metadata: bounded in depth and size, never
//! panicking, blind to newtypes.

use codec::{Compact, Decode};
use scale_info::{
    Field, PortableRegistry, TypeDef, TypeDefPrimitive, TypeDefVariant, form::PortableForm,
};

/// Deeper nesting than any type we read has.
const MAX_DEPTH: usize = 64;

/// More values than the largest metagraph has.
const MAX_VALUES: usize = 1 << 20;

/// A decoded value. Structs and tuples of one unnamed field are replaced by that field, because
/// runtimes wrap and unwrap integers between versions (`u16`, `NetUid(u16)`) without changing a byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `()`, or `None`.
    Unit,
    Bool(bool),
    /// An unsigned integer, compact or not.
    Uint(u128),
    Int(i128),
    /// A sequence or array of `u8`.
    Bytes(Vec<u8>),
    Text(String),
    /// A sequence, an array, or a tuple or struct without field names.
    List(Vec<Value>),
    Record(Vec<(String, Value)>),
    /// A variant of an enum; `Some(x)` is replaced by `x`.
    Variant(String, Box<Value>),
}

/// Why bytes could not be decoded, or a value not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("the bytes end too early")]
    Short,
    /// Bytes are left over.
    #[error("{0} byte(s) are left over")]
    Leftover(usize),
    /// Nested deeper than any honest type.
    #[error("the type is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// More values than any honest answer has.
    #[error("it holds more than {MAX_VALUES} values")]
    TooMany,
    /// The metadata has no such type.
    #[error("the metadata has no type {0}")]
    UnknownType(u32),
    /// A type we have no use for.
    #[error("it holds a {0}, which is not supported")]
    Unsupported(&'static str),
    /// A byte that stands for nothing.
    #[error("{0} is not a value of a {1}")]
    BadValue(u32, &'static str),
    #[error("there is no field {0:?}")]
    NoField(String),
    #[error("expected {expected}, found {found}")]
    Shape {
        expected: &'static str,
        found: String,
    },
}

/// Decodes all of `bytes` as the type `id` of `types`.
pub fn decode(mut bytes: &[u8], id: u32, types: &PortableRegistry) -> Result<Value, DecodeError> {
    let mut decoder = Decoder {
        types,
        values_left: MAX_VALUES,
    };
    let value = decoder.value(&mut bytes, id, MAX_DEPTH)?;
    if bytes.is_empty() {
        Ok(value)
    } else {
        Err(DecodeError::Leftover(bytes.len()))
    }
}

struct Decoder<'a> {
    types: &'a PortableRegistry,
    values_left: usize,
}

impl Decoder<'_> {
    fn value(&mut self, bytes: &mut &[u8], id: u32, depth: usize) -> Result<Value, DecodeError> {
        let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
        self.values_left = self
            .values_left
            .checked_sub(1)
            .ok_or(DecodeError::TooMany)?;
        let types = self.types;
        let ty = types.resolve(id).ok_or(DecodeError::UnknownType(id))?;
        match &ty.type_def {
            TypeDef::Primitive(primitive) => self::primitive(bytes, primitive),
            TypeDef::Compact(_) => Compact::<u128>::decode(bytes)
                .map(|n| Value::Uint(n.0))
                .map_err(|_| DecodeError::Short),
            TypeDef::Composite(composite) => self.fields(bytes, &composite.fields, depth),
            TypeDef::Tuple(tuple) => {
                let ids = tuple.fields.iter().map(|field| field.id);
                self.unnamed(bytes, ids, depth)
            }
            TypeDef::Array(array) => self.items(bytes, array.type_param.id, array.len, depth),
            TypeDef::Sequence(sequence) => {
                let Compact(len) = Compact::<u32>::decode(bytes).map_err(|_| DecodeError::Short)?;
                self.items(bytes, sequence.type_param.id, len, depth)
            }
            TypeDef::Variant(variants) => {
                let is_option = ty.path.segments.len() == 1 && ty.path.segments[0] == "Option";
                self.variant(bytes, variants, is_option, depth)
            }
            TypeDef::BitSequence(_) => Err(DecodeError::Unsupported("bit sequence")),
        }
    }

    fn fields(
        &mut self,
        bytes: &mut &[u8],
        fields: &[Field<PortableForm>],
        depth: usize,
    ) -> Result<Value, DecodeError> {
        if fields.iter().any(|field| field.name.is_none()) {
            return self.unnamed(bytes, fields.iter().map(|field| field.ty.id), depth);
        }
        if fields.is_empty() {
            return Ok(Value::Unit);
        }
        let named = fields.iter().map(|field| {
            let name = field.name.clone().unwrap_or_default();
            Ok((name, self.value(bytes, field.ty.id, depth)?))
        });
        named.collect::<Result<_, _>>().map(Value::Record)
    }

    fn unnamed(
        &mut self,
        bytes: &mut &[u8],
        mut ids: impl ExactSizeIterator<Item = u32>,
        depth: usize,
    ) -> Result<Value, DecodeError> {
        match (ids.len(), ids.next()) {
            (_, None) => Ok(Value::Unit),
            (1, Some(id)) => self.value(bytes, id, depth),
            (_, Some(id)) => std::iter::once(id)
                .chain(ids)
                .map(|id| self.value(bytes, id, depth))
                .collect::<Result<_, _>>()
                .map(Value::List),
        }
    }

    fn items(
        &mut self,
        bytes: &mut &[u8],
        id: u32,
        len: u32,
        depth: usize,
    ) -> Result<Value, DecodeError> {
        let item = self.types.resolve(id).ok_or(DecodeError::UnknownType(id))?;
        let len = len as usize;
        if matches!(item.type_def, TypeDef::Primitive(TypeDefPrimitive::U8)) {
            let (taken, rest) = bytes.split_at_checked(len).ok_or(DecodeError::Short)?;
            *bytes = rest;
            return Ok(Value::Bytes(taken.to_vec()));
        }
        // The length is the sender's word: items are taken one by one, each counted.
        let mut list = Vec::with_capacity(len.min(4096));
        for _ in 0..len {
            list.push(self.value(bytes, id, depth)?);
        }
        Ok(Value::List(list))
    }

    fn variant(
        &mut self,
        bytes: &mut &[u8],
        variants: &TypeDefVariant<PortableForm>,
        is_option: bool,
        depth: usize,
    ) -> Result<Value, DecodeError> {
        let index = take_byte(bytes)?;
        let variant = variants
            .variants
            .iter()
            .find(|variant| variant.index == index)
            .ok_or(DecodeError::BadValue(index.into(), "enum"))?;
        let content = self.fields(bytes, &variant.fields, depth)?;
        Ok(if is_option {
            content
        } else {
            Value::Variant(variant.name.clone(), Box::new(content))
        })
    }
}

fn take_byte(bytes: &mut &[u8]) -> Result<u8, DecodeError> {
    let (first, rest) = bytes.split_first().ok_or(DecodeError::Short)?;
    *bytes = rest;
    Ok(*first)
}

fn primitive(bytes: &mut &[u8], primitive: &TypeDefPrimitive) -> Result<Value, DecodeError> {
    fn take<T: Decode>(bytes: &mut &[u8]) -> Result<T, DecodeError> {
        T::decode(bytes).map_err(|_| DecodeError::Short)
    }
    Ok(match primitive {
        TypeDefPrimitive::Bool => match take_byte(bytes)? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            other => return Err(DecodeError::BadValue(other.into(), "bool")),
        },
        TypeDefPrimitive::U8 => Value::Uint(take::<u8>(bytes)?.into()),
        TypeDefPrimitive::U16 => Value::Uint(take::<u16>(bytes)?.into()),
        TypeDefPrimitive::U32 => Value::Uint(take::<u32>(bytes)?.into()),
        TypeDefPrimitive::U64 => Value::Uint(take::<u64>(bytes)?.into()),
        TypeDefPrimitive::U128 => Value::Uint(take(bytes)?),
        TypeDefPrimitive::I8 => Value::Int(take::<i8>(bytes)?.into()),
        TypeDefPrimitive::I16 => Value::Int(take::<i16>(bytes)?.into()),
        TypeDefPrimitive::I32 => Value::Int(take::<i32>(bytes)?.into()),
        TypeDefPrimitive::I64 => Value::Int(take::<i64>(bytes)?.into()),
        TypeDefPrimitive::I128 => Value::Int(take(bytes)?),
        TypeDefPrimitive::U256 | TypeDefPrimitive::I256 => {
            Value::Bytes(take::<[u8; 32]>(bytes)?.to_vec())
        }
        TypeDefPrimitive::Str => {
            let raw: Vec<u8> = take(bytes)?;
            Value::Text(String::from_utf8_lossy(&raw).into_owned())
        }
        TypeDefPrimitive::Char => {
            let code: u32 = take(bytes)?;
            let char = char::from_u32(code).ok_or(DecodeError::BadValue(code, "char"))?;
            Value::Text(char.to_string())
        }
    })
}

impl Value {
    /// Returns the field of a struct.
    pub fn field(&self, name: &str) -> Result<&Self, DecodeError> {
        self.get(name)
            .ok_or_else(|| DecodeError::NoField(name.to_owned()))
    }

    /// Returns the field of a struct, if there is one.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Record(fields) = self else {
            return None;
        };
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value)
    }

    /// Returns whether it is `()` or `None`.
    pub fn is_unit(&self) -> bool {
        *self == Self::Unit
    }

    /// Reads an unsigned integer that fits `T`, through any wrapper of one field.
    pub fn uint<T: TryFrom<u128>>(&self) -> Result<T, DecodeError> {
        let number = match self.content() {
            Self::Uint(number) => T::try_from(*number).ok(),
            _ => None,
        };
        number.ok_or_else(|| self.unlike("an unsigned integer that fits"))
    }

    pub fn bool(&self) -> Result<bool, DecodeError> {
        match self.content() {
            Self::Bool(truth) => Ok(*truth),
            _ => Err(self.unlike("a truth value")),
        }
    }

    /// Reads bytes.
    pub fn bytes(&self) -> Result<&[u8], DecodeError> {
        match self.content() {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(self.unlike("bytes")),
        }
    }

    /// Reads a 32-byte account id or hash.
    pub fn account(&self) -> Result<[u8; 32], DecodeError> {
        self.bytes()?
            .try_into()
            .map_err(|_| self.unlike("32 bytes"))
    }

    pub fn list(&self) -> Result<&[Self], DecodeError> {
        match self.content() {
            Self::List(list) => Ok(list),
            _ => Err(self.unlike("a list")),
        }
    }

    /// Reads a list of exactly `N` items.
    pub fn tuple<const N: usize>(&self) -> Result<&[Self; N], DecodeError> {
        self.list()?
            .try_into()
            .map_err(|_| self.unlike("a tuple of another length"))
    }

    /// Reads an enum's variant: its name and content.
    pub fn variant(&self) -> Result<(&str, &Self), DecodeError> {
        match self {
            Self::Variant(name, content) => Ok((name, content)),
            _ => Err(self.unlike("an enum")),
        }
    }

    /// Looks through structs of one named field.
    fn content(&self) -> &Self {
        match self {
            Self::Record(fields) if fields.len() == 1 => fields[0].1.content(),
            _ => self,
        }
    }

    fn unlike(&self, expected: &'static str) -> DecodeError {
        let found = match self {
            Self::Unit => "nothing".to_owned(),
            Self::Bool(truth) => truth.to_string(),
            Self::Uint(number) => number.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Self::Text(text) => format!("a text of {} bytes", text.len()),
            Self::List(list) => format!("a list of {}", list.len()),
            Self::Record(fields) => format!("a struct of {} fields", fields.len()),
            Self::Variant(name, _) => format!("the variant {name}"),
        };
        DecodeError::Shape { expected, found }
    }
}
