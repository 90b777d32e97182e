//! Number types of HDF5 as the program reads them.

#![allow(unsafe_code)] // HDF5 types

use hdf5::datatype::{ByteOrder, Datatype};
use hdf5::sync::sync;
use hdf5::types::{IntSize, TypeDescriptor};
use hdf5_sys::h5t::{H5T_class_t, H5Tget_class};

/// The class of numbers of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NumberClass {
    Real,
    Integer(IntSize),
    Unsigned(IntSize),
    Boolean,
}

/// Returns the class of numbers of a type; `None` for other types.
pub(crate) fn numbers_of_type(dtype: &Datatype) -> Option<NumberClass> {
    match dtype.to_descriptor() {
        Ok(TypeDescriptor::Float(_)) => Some(NumberClass::Real),
        Ok(TypeDescriptor::Integer(size)) => Some(NumberClass::Integer(size)),
        Ok(TypeDescriptor::Unsigned(size)) => Some(NumberClass::Unsigned(size)),
        Ok(TypeDescriptor::Boolean) => Some(NumberClass::Boolean),
        Err(_) if is_half(dtype) => Some(NumberClass::Real),
        _ => None,
    }
}

/// Describes a type that is not numeric, for messages.
pub(crate) fn describe_type(dtype: &Datatype) -> String {
    match dtype.to_descriptor() {
        Ok(
            TypeDescriptor::FixedAscii(_)
            | TypeDescriptor::FixedUnicode(_)
            | TypeDescriptor::VarLenAscii
            | TypeDescriptor::VarLenUnicode,
        ) => "text".to_string(),
        Ok(other) => other.to_string(),
        Err(error) => format!("a type that cannot be read ({error})"),
    }
}

/// Returns whether a number format differs from the machine's in more than the byte order. Only
/// damaged headers have such a format, and the library would convert it without an error.
pub(crate) fn is_unusual(dtype: &Datatype) -> bool {
    let Ok(descriptor) = dtype.to_descriptor() else { return false };
    let number = matches!(
        descriptor,
        TypeDescriptor::Float(_) | TypeDescriptor::Integer(_) | TypeDescriptor::Unsigned(_)
    );
    let native = Datatype::from_descriptor(&descriptor);
    number
        && dtype.byte_order() != ByteOrder::BigEndian
        && native.is_ok_and(|native| native != *dtype)
}

/// Returns whether a type is floating point of two bytes, which the bindings do not describe.
pub(crate) fn is_half(dtype: &Datatype) -> bool {
    dtype.size() == 2 && class_of(dtype) == H5T_class_t::H5T_FLOAT
}

/// Returns the class of a type.
pub(crate) fn class_of(dtype: &Datatype) -> H5T_class_t {
    // SAFETY: the id is that of a living type.
    sync(|| unsafe { H5Tget_class(dtype.id()) })
}
