//! User-Agents as clients send them.

/// The bytes of a User-Agent that are looked at. Longer ones are made to cost time.
const LOOKED_AT: usize = 512;

/// The part of a User-Agent that is looked at.
pub(super) fn cut(agent: &str) -> &str {
    &agent[..agent.floor_char_boundary(LOOKED_AT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_not_cut() {
        assert_eq!((cut("a"), cut("")), ("a", ""));
        assert_eq!(cut(&"x".repeat(600)).len(), 512);
        assert_eq!(cut(&format!("x{}", "é".repeat(300))).len(), 511);
    }
}
