//! What an error of the server says about an insert: whether its rows are to blame, the table, or who asks.

use migrations::server::ServerError;

/// Exceptions about single rows. Names as in ErrorCodes.cpp: 6 CANNOT_PARSE_TEXT, 26 CANNOT_PARSE_QUOTED_STRING, 27
/// CANNOT_PARSE_INPUT_ASSERTION_FAILED, 38 CANNOT_PARSE_DATE, 41 CANNOT_PARSE_DATETIME, 69 ARGUMENT_OUT_OF_BOUND, 70
/// CANNOT_CONVERT_TYPE, 72 CANNOT_PARSE_NUMBER, 117 INCORRECT_DATA, 128 TOO_LARGE_ARRAY_SIZE, 131 TOO_LARGE_STRING_SIZE, 321
/// VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE, 349 CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN, 376 CANNOT_PARSE_UUID, 407
/// DECIMAL_OVERFLOW, 441 CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING, 467 CANNOT_PARSE_BOOL, 469 VIOLATED_CONSTRAINT, 675
/// CANNOT_PARSE_IPV4, 676 CANNOT_PARSE_IPV6, 691 UNKNOWN_ELEMENT_OF_ENUM.
const ROWS: [u32; 21] =
    [6, 26, 27, 38, 41, 69, 70, 72, 117, 128, 131, 321, 349, 376, 407, 441, 467, 469, 675, 676, 691];

/// Exceptions about who asks: 192 UNKNOWN_USER, 193 WRONG_PASSWORD, 194 REQUIRED_PASSWORD, 497 ACCESS_DENIED, 516
/// AUTHENTICATION_FAILED.
const ACCESS: [u32; 5] = [192, 193, 194, 497, 516];

/// TOO_MANY_PARTS: the table has too many, which passes, or the rows of the insert belong to too many partitions, which
/// does not.
const TOO_MANY_PARTS: u32 = 252;

/// Whether the server refused because of some of the rows: sent without these, the others are taken. What a view behind
/// the table says is about the view: the rows may be in the table already, so they must go on under the same name.
pub(super) fn is_of_rows(error: &ServerError) -> bool {
    let rows = error.code.is_some_and(|code| {
        ROWS.contains(&code) || code == TOO_MANY_PARTS && error.message.contains("partitions for single INSERT")
    });
    rows && !error.message.contains("while pushing to view")
}

/// Whether the server refused because of who asked: nothing that comes later changes that, but an administrator.
pub(super) fn is_of_access(error: &ServerError) -> bool {
    error.code.is_some_and(|code| ACCESS.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(message: &str) -> ServerError {
        ServerError::from(clickhouse::error::Error::BadResponse(message.into()))
    }

    #[test]
    fn rows_are_to_blame_for_what_they_hold_and_not_for_the_table_or_a_view() {
        for rows in [
            "Code: 469. DB::Exception: Constraint `c` for table d.t is violated at row 3. (VIOLATED_CONSTRAINT)",
            "Code: 131. DB::Exception: String too long for type FixedString(2). (TOO_LARGE_STRING_SIZE)",
            "Code: 252. DB::Exception: Too many partitions for single INSERT block (more than 100). (TOO_MANY_PARTS)",
        ] {
            assert!(is_of_rows(&error(rows)), "{rows}");
        }
        for other in [
            "Code: 16. DB::Exception: No such column x in table d.t. (NO_SUCH_COLUMN_IN_TABLE)",
            "Code: 60. DB::Exception: Table d.t does not exist. (UNKNOWN_TABLE)",
            "Code: 53. DB::Exception: Type mismatch. (TYPE_MISMATCH)",
            "Code: 252. DB::Exception: Too many parts (300). Merges are processing slower than inserts. (TOO_MANY_PARTS)",
            "Code: 469. DB::Exception: Constraint violated: while pushing to view d.mv. (VIOLATED_CONSTRAINT)",
            "Code: 497. DB::Exception: w: Not enough privileges. (ACCESS_DENIED)",
            "connection refused",
        ] {
            assert!(!is_of_rows(&error(other)), "{other}");
        }
    }

    #[test]
    fn who_asks_is_to_blame_for_wrong_credentials_and_missing_rights() {
        assert!(is_of_access(&error("Code: 516. DB::Exception: me: Authentication failed. (AUTHENTICATION_FAILED)")));
        assert!(is_of_access(&error("Code: 497. DB::Exception: w: Not enough privileges. (ACCESS_DENIED)")));
        assert!(!is_of_access(&error("Code: 241. DB::Exception: Memory limit exceeded.")));
        assert!(!is_of_access(&error("connection refused")));
    }
}
