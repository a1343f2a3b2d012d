//! Logarithm and power that give the same bits on every machine, and the average path length made of them.
//!
//! `f64::ln` and `f64::exp2` call the system's C library, whose last bit differs from one version to the next. A model
//! trained here must be the model trained there, and a score replayed later must be the score that was stored.

/// Euler's constant, the limit of 1 + 1/2 + … + 1/n − ln n.
pub const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;

/// ln 2 in two parts. The first has 21 zero bits at its end, so that it times an exponent is exact.
const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

const MANTISSA_BITS: u32 = 52;
const EXPONENT_BIAS: i64 = 1023;

/// The natural logarithm of a normal positive number, to about 1e-16 of its value; NaN for any other.
///
/// With x = m·2^k and m near 1, ln x = k·ln 2 + 2·artanh((m−1)/(m+1)), the last as its power series.
pub fn ln(x: f64) -> f64 {
    if !x.is_normal() || x < 0.0 {
        return f64::NAN;
    }
    let bits = x.to_bits();
    let mut exponent = (bits >> MANTISSA_BITS) as i64 - EXPONENT_BIAS;
    let mut mantissa = f64::from_bits((bits & ((1 << MANTISSA_BITS) - 1)) | (1023 << MANTISSA_BITS));
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    // |ratio| ≤ 0.1716, so the twelfth term is below 1e-17.
    let tail = (1..12).rev().fold(0.0, |sum, i| (sum + 1.0 / f64::from(2 * i + 1)) * square);
    let exponent = exponent as f64;
    exponent * LN_2_HIGH + (exponent * LN_2_LOW + 2.0 * (ratio + ratio * tail))
}

/// The base-two logarithm of a normal positive number; NaN for any other.
pub fn log2(x: f64) -> f64 {
    ln(x) / std::f64::consts::LN_2
}

/// 2 to the power of `x`, to about 2e-16 of its value; 0 below 2^−1022, infinite from 2^1023 on.
///
/// With x = k + f and |f| ≤ 1/2, 2^x = 2^k·e^(f·ln 2), the last as its power series.
pub fn exp2(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let whole = x.round();
    if whole < -1022.0 {
        return 0.0;
    }
    if whole > 1022.0 {
        return f64::INFINITY;
    }
    let power = (x - whole) * std::f64::consts::LN_2;
    // |power| ≤ 0.3466, so the fifteenth term is below 1e-18.
    let series = (1..15).rev().fold(1.0, |sum, i| 1.0 + sum * power / f64::from(i));
    series * f64::from_bits(((whole as i64 + EXPONENT_BIAS) as u64) << MANTISSA_BITS)
}

/// The average number of splits that separate one of `rows` rows from the others: the average path of an unsuccessful
/// search in a binary search tree, equation 1 of Liu, Ting, Zhou 2008.
///
/// c(n) = 2·(ln(n − 1) + γ) − 2·(n − 1)/n, c(2) = 1, c(1) = c(0) = 0, as scikit-learn computes it.
pub fn average_path(rows: u32) -> f64 {
    match rows {
        0 | 1 => 0.0,
        2 => 1.0,
        _ => {
            let rows = f64::from(rows);
            2.0 * (ln(rows - 1.0) + EULER_GAMMA) - 2.0 * (rows - 1.0) / rows
        }
    }
}

/// The greatest `f32` that is not above `x`: for an `f32` y, y ≤ x holds exactly if y ≤ `floor_f32(x)`.
pub fn floor_f32(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) > x { near.next_down() } else { near }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_and_power_agree_with_the_library() {
        for i in 1..200_000u32 {
            let x = f64::from(i) * 0.37;
            let error = (ln(x) - x.ln()).abs();
            assert!(error <= 2.0 * f64::EPSILON * x.ln().abs().max(0.5), "ln {x}: {error:e}");
            let power = -f64::from(i) * 1e-4;
            assert!((exp2(power) / power.exp2() - 1.0).abs() <= 4.0 * f64::EPSILON, "2^{power}");
        }
    }

    #[test]
    fn ends_of_the_range_are_defined() {
        assert_eq!(ln(1.0), 0.0);
        assert!(ln(0.0).is_nan() && ln(-1.0).is_nan() && ln(f64::INFINITY).is_nan() && ln(f64::NAN).is_nan());
        assert_eq!((exp2(0.0), exp2(-1.0), exp2(10.0)), (1.0, 0.5, 1024.0));
        assert_eq!((exp2(-1e9), exp2(1e9), exp2(f64::NEG_INFINITY)), (0.0, f64::INFINITY, 0.0));
        assert!(exp2(f64::NAN).is_nan());
        assert_eq!(exp2(-1022.0), f64::MIN_POSITIVE);
    }

    #[test]
    fn average_path_has_the_values_of_the_paper() {
        assert_eq!((average_path(0), average_path(1), average_path(2)), (0.0, 0.0, 1.0));
        // numpy: 2*(log(255)+euler_gamma)-2*255/256
        assert!((average_path(256) - 10.244_770_920_119_917).abs() < 1e-13);
    }

    #[test]
    fn thresholds_are_rounded_down() {
        for (x, y) in [(0.1, 0.1f32), (0.3, 0.3), (1.0, 1.0), (-0.1, -0.1), (16_777_217.0, 16_777_216.0)] {
            let floor = floor_f32(x);
            assert!(f64::from(floor) <= x && f64::from(floor.next_up()) > x);
            assert!((floor - y).abs() <= f32::EPSILON * y.abs());
        }
    }
}
