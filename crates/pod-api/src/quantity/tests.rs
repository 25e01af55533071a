use proptest::prelude::*;

use super::*;

fn both(text: &str) -> (i64, i64) {
    let quantity = Quantity(text.to_owned());
    (millis(&quantity).unwrap(), bytes(&quantity).unwrap())
}

#[test]
fn values_are_exact_and_rounded_up() {
    for (text, expected) in [
        ("0", (0, 0)),
        ("1", (1000, 1)),
        ("250m", (250, 1)),
        ("0.5", (500, 1)),
        (".5", (500, 1)),
        ("5.", (5000, 5)),
        ("1n", (1, 1)),
        ("100u", (1, 1)),
        ("1k", (1_000_000, 1000)),
        ("64Mi", (67_108_864_000, 67_108_864)),
        ("1.5Gi", (1_610_612_736_000, 1_610_612_736)),
        ("1e3", (1_000_000, 1000)),
        ("1E3", (1_000_000, 1000)),
        ("1E", (i64::MAX, 1_000_000_000_000_000_000)),
        ("12e-1", (1200, 2)),
        ("-1.5", (-1500, -2)),
        ("+2", (2000, 2)),
        ("0.0000000000000000000000001", (1, 1)),
        ("8Ei", (i64::MAX, i64::MAX)),
        ("99999999999999999999999999999999999999999999", (i64::MAX, i64::MAX)),
        ("1e99", (i64::MAX, i64::MAX)),
        ("0e99999", (0, 0)),
        ("1e-99999", (1, 1)),
        ("0.1Ki", (102_400, 103)),
    ] {
        assert_eq!(both(text), expected, "{text}");
    }
}

#[test]
fn malformed_text_is_refused() {
    for text in ["", "-", ".", "1..2", "1.2.3", "Mi", "1Q", "1mi", "1 Mi", "1e", "1ee3", "--1", "0x10", "1KiB", "١"] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn canonical_text_has_no_fraction_and_the_largest_suffix() {
    for (text, expected) in [
        ("0.5", "500m"),
        ("1000m", "1"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("0.1Ki", "102400m"),
        ("1500", "1500"),
        ("1000", "1k"),
        ("1000e3", "1e6"),
        ("64Mi", "64Mi"),
        ("0", "0"),
        ("-2000Mi", "-2000Mi"),
    ] {
        assert_eq!(canonical(&Quantity(text.to_owned())).unwrap(), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_shown_reads_back_the_same(value in any::<i64>(), format in 0..3usize) {
        let format = [Format::DecimalSi, Format::BinarySi, Format::DecimalExponent][format];
        for amount in [Amount::from_millis(value), Amount::from_whole(value)] {
            // −2^63 is one beyond the cap.
            prop_assume!(value != i64::MIN);
            prop_assert_eq!(parse(&amount.display(format)).unwrap().0, amount);
        }
    }

    #[test]
    fn order_follows_the_number(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000) {
        let amount = |value: i64| parse(&format!("{value}m")).unwrap().0;
        prop_assert_eq!(amount(a).cmp(&amount(b)), a.cmp(&b));
        prop_assert_eq!(amount(a) + amount(b), amount(a + b));
    }

    #[test]
    fn no_text_panics(text in "[+-]?[0-9.]{0,40}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,12}") {
        let _ = parse(&text).map(|(amount, format)| (amount.whole(), amount.millis(), amount.display(format)));
    }
}
