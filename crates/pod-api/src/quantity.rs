//! Kubernetes quantities (`250m`, `64Mi`, `1e3`) as exact integers of one billionth, which is their finest resolution.
//!
//! Grammar: API concepts, "Quantity"; finer parts are rounded away from zero and magnitudes are capped at 2^63 − 1, as
//! upstream does.

use std::fmt;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const NANO: i128 = 1_000_000_000;
const MAX_WHOLE: u128 = i64::MAX as u128;
/// Digits kept after the decimal point before a binary suffix multiplies them; the rest only rounds.
const FRACTION_DIGITS: usize = 18;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text upstream's validation shows, which people search for.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Malformed,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An exact amount; compares and adds as a number, whatever it was written like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount {
    nanos: i128,
}

/// How an amount was written, which its canonical form keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `m`, `k`, `M` …
    DecimalSi,
    /// `Ki`, `Mi` …
    BinarySi,
    /// `1e3`.
    DecimalExponent,
}

impl Amount {
    pub const fn from_whole(value: i64) -> Amount {
        Amount { nanos: value as i128 * NANO }
    }

    pub const fn from_millis(value: i64) -> Amount {
        Amount { nanos: value as i128 * (NANO / 1000) }
    }

    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whole units (bytes, cores), rounded up.
    pub fn whole(self) -> i64 {
        saturate(ceil_div(self.nanos, NANO))
    }

    /// Thousandths, rounded up.
    pub fn millis(self) -> i64 {
        saturate(ceil_div(self.nanos, NANO / 1000))
    }

    /// The canonical text: no fraction, and the largest suffix that leaves none.
    pub fn display(self, format: Format) -> String {
        match format {
            // Below 1 Ki and for fractions there is no binary suffix to use.
            Format::BinarySi if self.nanos % NANO == 0 && self.nanos.abs() >= 1024 * NANO => binary(self.nanos / NANO),
            Format::BinarySi | Format::DecimalSi => decimal(self.nanos, |exponent| suffix_of(exponent).to_owned()),
            Format::DecimalExponent => decimal(self.nanos, |exponent| match exponent {
                0 => String::new(),
                exponent => format!("e{exponent}"),
            }),
        }
    }
}

impl std::ops::Add for Amount {
    type Output = Amount;

    fn add(self, other: Amount) -> Amount {
        Amount { nanos: self.nanos.saturating_add(other.nanos) }
    }
}

impl std::ops::Sub for Amount {
    type Output = Amount;

    fn sub(self, other: Amount) -> Amount {
        Amount { nanos: self.nanos.saturating_sub(other.nanos) }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display(Format::DecimalSi))
    }
}

/// Thousandths of a unit (CPU), rounded up.
pub fn millis(quantity: &Quantity) -> Result<i64, QuantityError> {
    Ok(parse(&quantity.0)?.0.millis())
}

/// Whole units (bytes), rounded up.
pub fn bytes(quantity: &Quantity) -> Result<i64, QuantityError> {
    Ok(parse(&quantity.0)?.0.whole())
}

/// The canonical text of a quantity, as the API server would show it.
pub fn canonical(quantity: &Quantity) -> Result<String, QuantityError> {
    let (amount, format) = parse(&quantity.0)?;
    Ok(amount.display(format))
}

pub fn parse(text: &str) -> Result<(Amount, Format), QuantityError> {
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let number_end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(QuantityError::Malformed);
    }
    let (exponent, shift, format) = parse_suffix(suffix)?;
    let nanos = scale(whole, fraction, exponent, shift);
    Ok((Amount { nanos: if negative { -nanos } else { nanos } }, format))
}

/// The power of ten and the power of two a suffix stands for.
fn parse_suffix(suffix: &str) -> Result<(i64, u32, Format), QuantityError> {
    let binary = |shift| Ok((0, shift, Format::BinarySi));
    let decimal = |exponent| Ok((exponent, 0, Format::DecimalSi));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let exponent = digits.parse::<i32>().map_err(|_| QuantityError::Suffix)?;
            Ok((i64::from(exponent), 0, Format::DecimalExponent))
        }
    }
}

/// `whole.fraction × 10^exponent × 2^shift` in nanos, rounded up and capped.
fn scale(whole: &str, fraction: &str, exponent: i64, shift: u32) -> i128 {
    let digits = || whole.bytes().chain(fraction.bytes());
    let count = (whole.len() + fraction.len()) as i64;
    // Multiplying by a power of ten only moves the point.
    let point = whole.len() as i64 + exponent;

    let mut integer: u128 = 0;
    for digit in digits().take(point.clamp(0, count) as usize) {
        integer = (integer * 10 + u128::from(digit - b'0')).min(MAX_WHOLE);
    }
    for _ in count..point {
        if integer == 0 || integer == MAX_WHOLE {
            break;
        }
        integer = (integer * 10).min(MAX_WHOLE);
    }

    let mut parts: u128 = 0;
    let mut kept = 0;
    let mut rest = false;
    let leading_zeros = (-point).clamp(0, FRACTION_DIGITS as i64 + 1) as usize;
    let behind_point = std::iter::repeat_n(b'0', leading_zeros).chain(digits().skip(point.max(0) as usize));
    for digit in behind_point {
        if kept < FRACTION_DIGITS {
            parts = parts * 10 + u128::from(digit - b'0');
            kept += 1;
        } else {
            rest |= digit != b'0';
        }
    }
    parts *= 10u128.pow((FRACTION_DIGITS - kept) as u32);

    let cap = MAX_WHOLE * NANO as u128;
    let integer_nanos = (integer << shift).min(MAX_WHOLE) * NANO as u128;
    // parts < 10^18 and shift ≤ 60, so the product stays below 2^120.
    let fraction_nanos = ((parts << shift) + u128::from(rest)).div_ceil(10u128.pow(FRACTION_DIGITS as u32 - 9));
    (integer_nanos + fraction_nanos).min(cap) as i128
}

fn ceil_div(value: i128, divisor: i128) -> i128 {
    // Away from zero, like upstream's Value and MilliValue.
    let magnitude = value.unsigned_abs().div_ceil(divisor.unsigned_abs()) as i128;
    if value < 0 { -magnitude } else { magnitude }
}

fn saturate(value: i128) -> i64 {
    value.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn decimal(nanos: i128, suffix: impl Fn(i32) -> String) -> String {
    if nanos == 0 {
        return "0".to_owned();
    }
    let (mut value, mut exponent) = (nanos, -9);
    while value % 1000 == 0 && exponent < 18 {
        value /= 1000;
        exponent += 3;
    }
    format!("{value}{}", suffix(exponent))
}

fn binary(whole: i128) -> String {
    let (mut value, mut suffix) = (whole, "");
    for larger in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
        if value % 1024 != 0 {
            break;
        }
        value /= 1024;
        suffix = larger;
    }
    format!("{value}{suffix}")
}

fn suffix_of(exponent: i32) -> &'static str {
    match exponent {
        -9 => "n",
        -6 => "u",
        -3 => "m",
        3 => "k",
        6 => "M",
        9 => "G",
        12 => "T",
        15 => "P",
        18 => "E",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
