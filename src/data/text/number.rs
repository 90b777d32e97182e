//! Where the fields of a line lie, and the decimal numbers in them: most of the time of a
//! conversion.

use crate::data::hdf5::numbers;

/// Largest power of ten that f64 holds exactly.
const EXACT_POWERS: usize = 22;
const COMMAS: u64 = u64::from_ne_bytes([b','; 8]);
const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// Begin and end of each field of a line, without the blanks around it.
pub(super) fn split(line: &[u8], fields: &mut Vec<(usize, usize)>) {
    fields.clear();
    let mut begin = 0;
    let mut field = |end: usize| {
        fields.push(trim(line, begin, end));
        begin = end + 1;
    };
    let words = line.chunks_exact(8);
    let rest = words.remainder();
    for (index, word) in words.enumerate() {
        // The highest bit of each byte that is a comma (Mycroft's test, made exact).
        let word = word.try_into().map_or(0, u64::from_le_bytes) ^ COMMAS;
        let mut found = !(((word & LOW) + LOW) | word | LOW);
        while found != 0 {
            field(8 * index + found.trailing_zeros() as usize / 8);
            found &= found - 1;
        }
    }
    for (index, _) in rest.iter().enumerate().filter(|(_, byte)| **byte == b',') {
        field(line.len() - rest.len() + index);
    }
    field(line.len());
}

fn trim(line: &[u8], mut begin: usize, mut end: usize) -> (usize, usize) {
    while begin < end && line[begin].is_ascii_whitespace() {
        begin += 1;
    }
    while end > begin && line[end - 1].is_ascii_whitespace() {
        end -= 1;
    }
    (begin, end)
}

/// A decimal number, rounded to the nearest f64. Up to 15 digits with a small exponent,
/// which is nearly all, two exact numbers and one rounding give that (Clinger 1990); the
/// rest is left to the standard library.
pub(super) fn number(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mut mantissa, mut count, mut after, mut point) = (0u64, 0, 0usize, false);
    for byte in digits {
        match byte {
            b'0'..=b'9' if count < 18 => {
                mantissa = mantissa * 10 + u64::from(byte - b'0');
                count += 1;
                after += usize::from(point);
            }
            b'.' if !point => point = true,
            _ => return slow_number(text),
        }
    }
    if count == 0 || mantissa >= 1 << 53 || after > EXACT_POWERS {
        return slow_number(text);
    }
    let value = if after == 0 { mantissa as f64 } else { mantissa as f64 / POWERS[after] };
    Some(if negative { -value } else { value })
}

fn slow_number(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

const POWERS: [f64; EXACT_POWERS + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// A whole number that an i64 holds, also written as a decimal number, as in `17.0`.
pub(super) fn whole(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        let text = std::str::from_utf8(text).ok()?;
        return text.parse().ok().or_else(|| whole_decimal(text));
    }
    Some(text.iter().fold(0, |value, byte| 10 * value + i64::from(byte - b'0')))
}

/// A decimal number whose fraction is 0; with an exponent, one that f64 holds exactly.
fn whole_decimal(text: &str) -> Option<i64> {
    match text.split_once('.') {
        Some((digits, zeros)) if zeros.bytes().all(|byte| byte == b'0') => digits.parse().ok(),
        _ => numbers::whole(text.parse().ok()?, numbers::EXACT_F64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    #[test]
    fn a_number_is_the_nearest_f64_to_its_digits() {
        let stream = Stream::new(7, "digits", &[]);
        for i in 0..20_000u64 {
            let bits = stream.bits(2 * i);
            let digits = format!("{}", bits >> (stream.bits(2 * i + 1) % 60));
            let point = (bits as usize >> 3) % (digits.len() + 1);
            let sign = ["", "-", "+"][bits as usize % 3];
            let text = format!("{sign}{}.{}", &digits[..point], &digits[point..]);
            let expected: f64 = text.parse().unwrap();
            assert_eq!(number(text.as_bytes()).unwrap().to_bits(), expected.to_bits(), "{text}");
        }
        for text in
            ["1e3", "1.5E-7", "inf", "-inf", "0", "-0", "1.", ".5", "00012.50", "1e400", "5e-324"]
        {
            let expected: f64 = text.parse().unwrap();
            assert_eq!(number(text.as_bytes()).unwrap().to_bits(), expected.to_bits(), "{text}");
        }
        assert!(number(b"nan").unwrap().is_nan());
        for text in ["", ".", "-", "1.2.3", "1,5", "0x10", "1e", "1 2", "--1", "\u{661}"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn whole_numbers_agree_with_standard_library() {
        let stream = Stream::new(8, "whole", &[]);
        for i in 0..20_000u64 {
            let text = format!("{}", (stream.bits(i) as i64) >> (stream.bits(i + 1) % 64));
            assert_eq!(whole(text.as_bytes()), text.parse().ok(), "{text}");
        }
        for text in ["", "-", "+5", " 1", "9223372036854775808", "-9223372036854775808"] {
            assert_eq!(whole(text.as_bytes()), text.parse().ok(), "{text}");
        }
        // Keys may be written as floating point.
        for (text, value) in [("1.0", Some(1)), ("-7.00", Some(-7)), ("1e3", Some(1000))] {
            assert_eq!(whole(text.as_bytes()), value, "{text}");
        }
        for text in ["1.5", "1e-1", "1e300", "nan", "9007199254740993e0"] {
            assert_eq!(whole(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn fields_are_what_lies_between_commas() {
        let stream = Stream::new(9, "fields", &[]);
        let letters = b",,,ab, 12\t\xac\x2d,.";
        let mut fields = vec![(7, 9)];
        for i in 0..5_000u64 {
            let length = (stream.bits(i) % 40) as usize;
            let letter = |k: usize| letters[(stream.bits(1_000 * i + k as u64) % 14) as usize];
            let line: Vec<u8> = (0..length).map(letter).collect();
            split(&line, &mut fields);
            let found: Vec<&[u8]> = fields.iter().map(|(b, e)| &line[*b..*e]).collect();
            let expected: Vec<&[u8]> =
                line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect();
            assert_eq!(found, expected, "{line:?}");
        }
    }
}
