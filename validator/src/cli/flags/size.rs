//! Sizes as people write them.

use std::str::FromStr;

/// A number of bytes: `500GB` and `10GiB` are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteSize(pub(crate) u64);

/// A text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected bytes, or a number with kB, MB, GB, TB, KiB, MiB, GiB or TiB")]
pub(crate) struct BadByteSize;

impl FromStr for ByteSize {
    type Err = BadByteSize;

    fn from_str(text: &str) -> Result<Self, BadByteSize> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit: u64 = match unit.trim() {
            "" | "B" => 1,
            "k" | "kB" | "KB" => 1000,
            "M" | "MB" => 1000_u64.pow(2),
            "G" | "GB" => 1000_u64.pow(3),
            "T" | "TB" => 1000_u64.pow(4),
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(BadByteSize),
        };
        let number: u64 = number.parse().map_err(|_| BadByteSize)?;
        number.checked_mul(unit).map(Self).ok_or(BadByteSize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("12", 12),
            ("3 kB", 3000),
            ("2GiB", 2 << 30),
            ("1TB", 10_u64.pow(12)),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "GB", "-1", "1.5GB", "1XB", "99999999999TB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(BadByteSize), "{text}");
        }
    }
}
