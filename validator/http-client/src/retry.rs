//! When a request is sent again, and how long to wait before.

use std::time::Duration;

use crate::error::HttpError;

/// How often to try, and how long to wait between tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in a row without progress.
    pub attempts: u32,
    /// Pause after the first failed attempt; it doubles after each.
    pub first_pause: Duration,
    /// Longest pause: if the server asks for more, the request fails at once, and its error says
    /// for how much ([`HttpError::retry_after`]).
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 4,
            first_pause: Duration::from_millis(300),
            longest_pause: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// Waits until the next attempt after `failed` attempts, this one not counted; returns the
    /// error where another would be pointless, too early or one too many.
    pub(crate) async fn pause(&self, error: HttpError, failed: &mut u32) -> Result<(), HttpError> {
        let doubled = 2_u32.saturating_pow((*failed).min(16));
        let pause = error
            .retry_after()
            .unwrap_or_else(|| self.first_pause.saturating_mul(doubled));
        *failed += 1;
        if !error.is_transient() || *failed >= self.attempts || pause > self.longest_pause {
            return Err(error);
        }
        tracing::debug!(%error, ?pause, "a request failed, trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    fn busy(seconds: Option<u64>) -> HttpError {
        HttpError::Status {
            url: String::new(),
            status: StatusCode::TOO_MANY_REQUESTS,
            body: String::new(),
            at_origin: true,
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_end_and_are_those_the_server_asks_for() {
        let policy = RetryPolicy::default();
        let (mut failed, mut waits) = (0, Vec::new());
        for seconds in [None, None, Some(9)] {
            let before = tokio::time::Instant::now();
            policy.pause(busy(seconds), &mut failed).await.unwrap();
            waits.push(before.elapsed().as_millis());
        }
        assert_eq!(waits, [300, 600, 9000]);
        policy.pause(busy(None), &mut failed).await.unwrap_err();
        let error = policy.pause(busy(Some(61)), &mut 0).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(61)));
    }
}
