//! Encodes paths, texts and numbers as bytes, for values that one rank sends to others.
//!
//! Fields are decoded in the order in which they were encoded; paths may contain any bytes. Input
//! that ends too early is an error, never a panic. The meaning of the fields is up to the caller.

use crate::error::{Error, Fault, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Encoder of fields that are sent to other ranks.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    pub(crate) fn number(&mut self, number: u64) -> &mut Encoder {
        self.bytes.extend(number.to_le_bytes());
        self
    }

    pub(crate) fn text(&mut self, text: &[u8]) -> &mut Encoder {
        self.number(text.len() as u64).bytes.extend(text);
        self
    }

    pub(crate) fn path(&mut self, path: &Path) -> &mut Encoder {
        self.text(path.as_os_str().as_bytes())
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Decoder of received fields.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder { rest: bytes }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn number(&mut self) -> Result<u64> {
        let (number, rest) = self.rest.split_first_chunk().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*number))
    }

    pub(crate) fn text(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.number()?).map_err(|_| cut_short())?;
        let (text, rest) = self.rest.split_at_checked(length).ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(text)
    }

    pub(crate) fn string(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(self.text()?).into_owned())
    }

    pub(crate) fn path(&mut self) -> Result<PathBuf> {
        Ok(PathBuf::from(OsStr::from_bytes(self.text()?)))
    }
}

fn cut_short() -> Error {
    Fault::new("a message from another rank ends too early").internal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_round_trip_and_short_input_fails() {
        let odd = PathBuf::from(OsStr::from_bytes(b"\xff\xfe/\n\0 a"));
        let mut encoder = Encoder::default();
        encoder.number(u64::MAX).path(&odd).text(b"").text("γ".as_bytes());
        let bytes = encoder.into_bytes();
        let mut decoder = Decoder::new(&bytes);
        assert_eq!((decoder.number().unwrap(), decoder.path().unwrap()), (u64::MAX, odd));
        assert_eq!(
            (decoder.string().unwrap(), decoder.string().unwrap()),
            (String::new(), "γ".into())
        );
        assert!(decoder.is_over() && decoder.number().is_err());
        // A length beyond the end, or beyond any end.
        for end in [9, bytes.len() - 1] {
            let mut decoder = Decoder::new(&bytes[..end]);
            let fields = (decoder.number(), decoder.path(), decoder.text(), decoder.text());
            assert!(fields.1.is_err() || fields.3.is_err(), "{end}");
        }
        assert!(Decoder::new(&[0xff; 8]).text().is_err());
    }
}
