//! Why a request is not answered, and how that is said over HTTP.

use std::time::Duration;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use datafusion::error::DataFusionError;
use datafusion::object_store;
use engine::catalog::HistoryError;
use engine::functions::BadArgument;
use serde::Serialize;

/// A request that is not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The statement has no meaning over the served tables, or its evaluation failed.
    #[error("{message}")]
    Query {
        /// What is wrong.
        message: String,
        /// What may help.
        help: Option<String>,
    },
    /// The request's Host is none of ours.
    #[error("this name is not served here; add it to `hosts` in the pipeline's section `serve`")]
    Unknown,
    /// The statement is not one that reads.
    #[error("{0}")]
    Forbidden(String),
    /// The statement's text did not arrive in time.
    #[error("the request took longer than {0:?} to arrive")]
    Slow(Duration),
    /// The query ran for too long and was stopped.
    #[error("the query ran longer than {0:?} and was stopped")]
    Timeout(Duration),
    /// The statement's text is too long.
    #[error("the statement is longer than {0} bytes")]
    TooLong(usize),
    /// The query needs more memory than it may have.
    #[error("the query needs more memory than it may have")]
    Memory,
    /// Other queries hold every place.
    #[error("the query waited {0:.1?} for its turn; try again in a moment")]
    Busy(Duration),
    /// A query process has said why there is no answer.
    #[error("{message}")]
    Answered {
        /// The status of the answer.
        status: StatusCode,
        /// What is wrong.
        message: String,
        /// What may help.
        help: Option<String>,
    },
    /// The request is not one that this service takes.
    #[error("{1}")]
    Refused(StatusCode, &'static str),
    /// None of the formats that the client accepts is served.
    #[error("none of the accepted formats is served")]
    NotAcceptable,
    /// The body is not UTF-8.
    #[error("the statement is not UTF-8")]
    Encoding,
    /// Stored rows cannot be read now, so that no answer would be complete.
    #[error("{0}")]
    History(String),
    /// A file of a table was removed while the query read it.
    #[error("files of the table are being removed; ask again")]
    Gone,
    /// A document for the run is not taken.
    #[error("{1}")]
    NotTaken(StatusCode, String),
    /// There is nothing under this address.
    #[error("there is nothing here")]
    NotFound,
    /// `/sql` was asked without a statement, or by another method than POST and GET.
    #[error("/sql takes a statement as the body of a POST request, or as `query` in the address of a GET request")]
    Method,
    /// A fault of this program or its disk; the cause is in its log.
    #[error("the query failed inside the server; its log says why")]
    Internal,
    /// The same, with its cause, which is not for the client.
    #[error("the query failed inside the server; its log says why")]
    Failed(String),
}

#[derive(Serialize)]
struct Body {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

impl Error {
    /// A statement that is wrong, with nothing to suggest.
    pub(crate) fn query(message: impl Into<String>) -> Self {
        Self::Query { message: message.into(), help: None }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Query { .. } | Self::Memory | Self::Encoding => StatusCode::BAD_REQUEST,
            Self::Forbidden(_) | Self::Unknown => StatusCode::FORBIDDEN,
            Self::Slow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::NotTaken(status, _) | Self::Answered { status, .. } => *status,
            Self::Refused(status, _) => *status,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::History(_) | Self::Gone => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal | Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(crate) fn help(&self) -> Option<String> {
        let text = match self {
            Self::Query { help, .. } | Self::Answered { help, .. } => return help.clone(),
            Self::Forbidden(_) => "served are SELECT, WITH, VALUES, EXPLAIN, DESCRIBE and SHOW TABLES",
            Self::Timeout(_) => "narrow the time range, add LIMIT or aggregate earlier",
            Self::Memory => "group by fewer columns, select fewer rows or sort with LIMIT",
            Self::History(_) => "`FROM hot.<table>` has the rows in memory alone",
            Self::Method => {
                "curl --data-binary 'select 1' http://ADDRESS/sql, where ADDRESS is this service's; `GET /tables` lists the tables"
            }
            Self::NotAcceptable => {
                "application/json, application/x-ndjson, text/csv, text/tab-separated-values, application/vnd.apache.arrow.stream, application/vnd.apache.parquet"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        if is_gone(&error) {
            return Self::Gone;
        }
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Self::Memory,
            DataFusionError::External(cause) if cause.is::<HistoryError>() => Self::History(cause.to_string()),
            DataFusionError::External(cause) if cause.is::<BadArgument>() => Self::Query {
                message: cause.to_string(),
                help: cause.downcast_ref::<BadArgument>().and_then(|bad| bad.help.clone()),
            },
            DataFusionError::IoError(_)
            | DataFusionError::ObjectStore(_)
            | DataFusionError::ParquetError(_)
            | DataFusionError::ExecutionJoin(_)
            | DataFusionError::External(_) => Self::Failed(error.to_string()),
            _ => Self::query(plain(&error.strip_backtrace())),
        }
    }
}

/// Whether a file that was there when the query was planned is not there any more.
fn is_gone(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let missing = error.downcast_ref::<object_store::Error>();
        if matches!(missing, Some(object_store::Error::NotFound { .. })) {
            return true;
        }
        next = error.source();
    }
    false
}

/// DataFusion's message without its class names.
fn plain(message: &str) -> String {
    let mut rest = message.trim();
    for prefix in [
        "Error during planning: ",
        // What the planner or a function did not expect of a statement, such as an unsigned column where it wants a signed one.
        "Internal error: ",
        "SQL error: ",
        "Schema error: ",
        "Execution error: ",
        "Arrow error: ",
        "This feature is not implemented: ",
    ] {
        rest = rest.strip_prefix(prefix).unwrap_or(rest);
    }
    let rest = rest.strip_prefix("ParserError(\"").and_then(|r| r.strip_suffix("\")")).unwrap_or(rest);
    // What follows is a list of every signature there is.
    let rest = rest.split("Candidate functions:").next().unwrap_or(rest);
    let rest = match rest.split_once(" to the signature ") {
        Some((fault, _)) => fault,
        None => rest,
    };
    let rest = rest.split("\nThis issue was likely caused by a bug").next().unwrap_or(rest);
    let rest = rest.split("This was likely caused by a bug").next().unwrap_or(rest);
    rest.trim().replace('\n', " ").replace("datafusion.public.", "")
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if let Self::Failed(cause) = &self {
            tracing::error!(cause, "a query failed");
        }
        let body = Body { error: self.to_string(), help: self.help() };
        let mut response = (self.status(), Json(body)).into_response();
        if matches!(self, Self::Busy(_)) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}
