//! What an endpoint's error answer means: for us, for it, and for whoever else may be asked.

/// What is to be done about an error answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerVerdict {
    /// Our request is wrong; any other endpoint would say the same.
    OurFault,
    /// We ask too much of this endpoint.
    GoAway,
    /// This endpoint does not have the method, others may.
    NoSuchMethod,
    /// This endpoint does not have the block or its state, others may.
    NoSuchState,
    /// Something is wrong with this endpoint.
    Unwell,
}

/// Why an endpoint is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Broken,
    ToldToGoAway,
}

/// Judges an error by its JSON-RPC code and its text.
pub(crate) fn judge(code: i32, message: &str) -> AnswerVerdict {
    match code {
        code if is_policy(code) => AnswerVerdict::GoAway,
        // Parse error, invalid request, invalid parameters; and what pools say to an extrinsic.
        -32700 | -32600 | -32602 | 1000..=1999 => AnswerVerdict::OurFault,
        -32601 => AnswerVerdict::NoSuchMethod,
        _ if is_discarded(message) => AnswerVerdict::NoSuchState,
        _ => AnswerVerdict::Unwell,
    }
}

/// "Too many requests" and its kin: limits of the node or of the proxy before it.
pub(crate) const fn is_policy(code: i32) -> bool {
    matches!(code, -32004 | -32005 | -32029 | 403 | 429 | -32999)
}

/// Returns whether a node says that it has no such block, or its state no more.
pub(crate) fn is_discarded(message: &str) -> bool {
    message.contains("State already discarded") || message.contains("UnknownBlock")
}
