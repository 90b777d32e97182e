use super::*;
use taiga_flow_gpu::random::Stream;

#[test]
fn number_is_the_nearest_f64_to_its_digits() {
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
    // Keys may be written as floating-point numbers.
    for (text, value) in [("1.0", Some(1)), ("-7.00", Some(-7)), ("1e3", Some(1000))] {
        assert_eq!(whole(text.as_bytes()), value, "{text}");
    }
    for text in ["1.5", "1e-1", "1e300", "nan", "9007199254740993e0"] {
        assert_eq!(whole(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn fields_equal_those_of_a_simple_split() {
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
