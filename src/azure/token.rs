//! Tokens of the service principal: the client-credentials grant, and the one cache that all requests share.
//!
//! A token is replaced when less than five minutes are left, by one request while the others go on with the old one.
//! Where there is none to go on with, all wait for one refresh and share its outcome. The secret is sent to the token
//! endpoint and nowhere else; neither secret nor token is ever part of an error.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, StatusCode};
use oauth2::basic::BasicClient;
use oauth2::{
    AsyncHttpClient, AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse,
    RequestTokenError, Scope, TokenResponse, TokenUrl,
};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use super::error::Defect;
use super::outgoing::{Anonymous, Credential, Outgoing, Reception};
use super::retry::{RetryPolicy, Sender};
use super::{AzureConfig, Error, ErrorKind};
use crate::payload::Payload;
use crate::secret::Secret;

const OPERATION: &str = "obtain a token for";

/// A token with less time left is replaced (the rule of Azure's own clients).
const REFRESH_MARGIN: Duration = Duration::from_secs(300);
/// After a failed early refresh the old token serves on for at least so long.
const REFRESH_PAUSE: Duration = Duration::from_secs(30);
/// Assumed where the answer does not say; the service's own minimum is an hour.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
/// What more than this is taken for: tokens of Entra are good for 28 hours at most ("Continuous access evaluation").
const LONGEST_LIFETIME: Duration = Duration::from_secs(28 * 3600);

/// Who asks for what; prints no secret.
pub(super) struct ServicePrincipal {
    token_url: Url,
    tenant: String,
    application: String,
    secret: Secret,
    scope: String,
}

impl ServicePrincipal {
    /// `{authority}/{tenant}/oauth2/v2.0/token` and the scope `{audience}/.default`.
    pub(super) fn new(config: &AzureConfig) -> Result<Self, Error> {
        let mut token_url = config.endpoints.authority.clone();
        token_url
            .path_segments_mut()
            .map_err(|()| {
                Error::new(
                    ErrorKind::Configuration,
                    "use authority",
                    &config.endpoints.authority,
                    "it cannot be the base of a URL",
                )
            })?
            .pop_if_empty()
            .extend([config.tenant_id.as_str(), "oauth2", "v2.0", "token"]);
        Ok(Self {
            token_url,
            tenant: config.tenant_id.clone(),
            application: config.application_id.clone(),
            secret: config.application_secret.clone(),
            scope: format!(
                "{}/.default",
                config.endpoints.audience.trim_end_matches('/')
            ),
        })
    }

    async fn fetch(&self, sender: &Sender) -> Result<(Secret, Duration), Error> {
        let client = BasicClient::new(ClientId::new(self.application.clone()))
            .set_client_secret(ClientSecret::new(self.secret.expose().to_owned()))
            .set_auth_type(AuthType::RequestBody)
            .set_token_uri(TokenUrl::from_url(self.token_url.clone()));
        let channel = Channel {
            sender,
            resource: self,
        };
        let token = client
            .exchange_client_credentials()
            .add_scope(Scope::new(self.scope.clone()))
            .request_async(&channel)
            .await
            .map_err(|error| self.explain(error))?;
        let lifetime = token
            .expires_in()
            .unwrap_or(DEFAULT_LIFETIME)
            .min(LONGEST_LIFETIME);
        Ok((Secret::new(token.access_token().secret().clone()), lifetime))
    }

    /// The body of an unreadable answer is left out: it may hold a token.
    fn explain<T>(&self, error: RequestTokenError<Error, T>) -> Error
    where
        T: oauth2::ErrorResponse + 'static,
    {
        match error {
            RequestTokenError::Request(error) => self.explain_refusal(&error),
            RequestTokenError::Parse(error, _body) => self.invalid(format!(
                "the answer is not a token: unexpected value at `{}`",
                error.path()
            )),
            RequestTokenError::ServerResponse(_) | RequestTokenError::Other(_) => {
                self.invalid("the answer is not a token".to_owned())
            }
        }
    }

    fn invalid(&self, text: String) -> Error {
        Error::invalid_answer(OPERATION, self, Defect::Malformed(text))
    }

    /// Says in plain words what the codes of Microsoft Entra ID mean ("Microsoft Entra authentication and
    /// authorization error codes"). A service in trouble (429, 5xx) writes such codes, too, and refuses nobody.
    ///
    /// Whatever status it refuses with, that tells nothing of the resource that is asked for with the token: a 404 must not look as
    /// if that were gone.
    fn explain_refusal(&self, error: &Error) -> Error {
        let is_refusal = matches!(
            error.kind(),
            ErrorKind::NotFound
                | ErrorKind::Unauthorized
                | ErrorKind::Forbidden
                | ErrorKind::Conflict
                | ErrorKind::Refused
        );
        if !is_refusal {
            return error.clone();
        }
        let Some(number) = aadsts(error.message()) else {
            return error.reinterpret(ErrorKind::Unauthorized, error.message());
        };
        let Self {
            tenant,
            application,
            ..
        } = self;
        let advice = match number {
            7_000_215 => {
                "the application secret is wrong; give the value of the secret, not its id"
                    .to_owned()
            }
            7_000_222 => "the application secret has expired; create a new one for the application"
                .to_owned(),
            700_016 => format!(
                "application {application} does not exist in tenant {tenant}; check application_id and tenant_id"
            ),
            90_002 => {
                format!("tenant {tenant} does not exist in this cloud; check tenant_id and cloud")
            }
            900_023 => format!("tenant_id {tenant} is neither an id nor a domain name of a tenant"),
            70_011 | 500_011 => format!(
                "tenant {tenant} does not know the resource {}; check cloud",
                self.scope
            ),
            _ => error.message().to_owned(),
        };
        error.reinterpret(
            ErrorKind::Unauthorized,
            if advice == error.message() {
                advice
            } else {
                format!("{advice} (AADSTS{number})")
            },
        )
    }
}

impl fmt::Display for ServicePrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "application {} in tenant {}",
            self.application, self.tenant
        )
    }
}

impl fmt::Debug for ServicePrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Number of the first `AADSTSnnnnn` in a text.
fn aadsts(text: &str) -> Option<u32> {
    let (_, after) = text.split_once("AADSTS")?;
    let end = after
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(after.len());
    after[..end].parse().ok()
}

/// Carries the requests of the `oauth2` package through the retry loop.
struct Channel<'a> {
    sender: &'a Sender,
    resource: &'a ServicePrincipal,
}

impl<'c> AsyncHttpClient<'c> for Channel<'_> {
    type Error = Error;
    type Future = BoxFuture<'c, Result<HttpResponse, Error>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let request = request.map(Payload::from);
            let outgoing = Outgoing {
                // Asking twice for a token yields two good tokens.
                repeatable: true,
                reception: Reception::up_to(1 << 20),
                ..Outgoing::new(OPERATION, self.resource, request, &[200], &Anonymous)
            };
            let answer = self.sender.send(outgoing).await?.answer;
            let mut response = HttpResponse::new(answer.contiguous().to_vec());
            *response.headers_mut() = answer.headers;
            Ok(response)
        })
    }
}

/// The current token, ready to be sent.
#[derive(Clone)]
struct Token {
    header: HeaderValue,
    expires: Instant,
    generation: u64,
}

/// The token of one service principal.
pub(super) struct TokenCache {
    principal: ServicePrincipal,
    current: Mutex<Option<Token>>,
    /// Held during a refresh: there is never more than one.
    refresh: AsyncMutex<LastRefresh>,
}

#[derive(Default)]
struct LastRefresh {
    generation: u64,
    failed: Option<(Instant, Error)>,
}

impl TokenCache {
    pub(super) fn new(principal: ServicePrincipal) -> Self {
        Self {
            principal,
            current: Mutex::new(None),
            refresh: AsyncMutex::default(),
        }
    }

    /// A token that is good for the next request; `sender` is used if one has to be fetched.
    async fn token(&self, sender: &Sender) -> Result<Token, Error> {
        let asked = Instant::now();
        if let Some(token) = self.current() {
            let left = token.expires.saturating_duration_since(asked);
            if left >= REFRESH_MARGIN {
                return Ok(token);
            }
            if !left.is_zero() {
                return self.refresh_early(token, sender).await;
            }
        }
        self.refresh(asked, None, sender).await
    }

    /// Replaces a token that still works: not at the cost of failing or of waiting in a crowd.
    async fn refresh_early(&self, old: Token, sender: &Sender) -> Result<Token, Error> {
        let Ok(mut last) = self.refresh.try_lock() else {
            return Ok(old);
        };
        let resting = last
            .failed
            .as_ref()
            .is_some_and(|(at, _)| at.elapsed() < REFRESH_PAUSE);
        if resting {
            return Ok(old);
        }
        let hasty = sender.with_policy(RetryPolicy::SHORT);
        match self.fetch(&mut last, &hasty).await {
            Err(error) if error.is_cancelled() => Err(error),
            Err(error) if old.expires <= Instant::now() => Err(error),
            Err(error) => {
                tracing::warn!("{error}; the old token serves on until it expires");
                Ok(old)
            }
            Ok(token) => Ok(token),
        }
    }

    /// Waits for a token other than that of generation `refused`.
    async fn refresh(
        &self,
        asked: Instant,
        refused: Option<u64>,
        sender: &Sender,
    ) -> Result<Token, Error> {
        let mut last = self.refresh.lock().await;
        if let Some(token) = self.current()
            && refused != Some(token.generation)
            && token.expires > Instant::now()
        {
            return Ok(token);
        }
        if let Some((at, error)) = &last.failed
            && *at > asked
        {
            return Err(error.clone());
        }
        self.fetch(&mut last, sender).await
    }

    async fn fetch(&self, last: &mut LastRefresh, sender: &Sender) -> Result<Token, Error> {
        // Counted from before the request: the service counts from before its answer.
        let asked = Instant::now();
        let fetched = self
            .principal
            .fetch(sender)
            .await
            .and_then(|(text, lifetime)| {
                let text = Zeroizing::new(format!("Bearer {}", text.expose()));
                let mut header = HeaderValue::try_from(text.as_str()).map_err(|_invalid| {
                    self.principal.invalid("the token is not plain text".into())
                })?;
                header.set_sensitive(true);
                last.generation += 1;
                Ok(Token {
                    header,
                    expires: asked + lifetime,
                    generation: last.generation,
                })
            });
        match &fetched {
            Ok(token) => {
                last.failed = None;
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
            }
            // Somebody else's job may have been cancelled: that says nothing to the others.
            Err(error) if error.is_cancelled() => {}
            Err(error) => last.failed = Some((Instant::now(), error.clone())),
        }
        fetched
    }

    fn current(&self) -> Option<Token> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("principal", &self.principal)
            .finish_non_exhaustive()
    }
}

/// The cache as a credential: `Authorization: Bearer`, and one forced refresh after a 401.
pub(super) struct Bearer<'a> {
    pub(super) cache: &'a TokenCache,
    pub(super) sender: &'a Sender,
}

impl Bearer<'_> {
    /// Makes sure that there is a token.
    pub(super) async fn login(&self) -> Result<(), Error> {
        self.sender
            .cancel()
            .run_until_cancelled(self.cache.token(self.sender))
            .await
            .unwrap_or_else(|| Err(Error::cancelled(OPERATION, &self.cache.principal)))
            .map(|_token| ())
    }
}

impl Credential for Bearer<'_> {
    fn authorize<'a>(
        &'a self,
        request: &'a mut Request<Payload>,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(async {
            let token = self.cache.token(self.sender).await?;
            request.headers_mut().insert(AUTHORIZATION, token.header);
            Ok(token.generation)
        })
    }

    fn is_refused(&self, status: StatusCode) -> bool {
        status == StatusCode::UNAUTHORIZED
    }

    fn renew(&self, generation: u64) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async move {
            self.cache
                .refresh(Instant::now(), Some(generation), self.sender)
                .await
                .map(|_token| true)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::exchange::TransportErrorKind;
    use super::super::testing::{
        Outcome, Script, answer, asks_for_token, config, json, lost, token_answer,
    };
    use super::*;
    use tokio_util::sync::CancellationToken;

    struct Fixture {
        script: Arc<Script>,
        cache: TokenCache,
        sender: Sender,
    }

    impl Fixture {
        fn new(answers: Vec<Outcome>) -> Self {
            let script = Script::sequence(answers);
            Self {
                cache: TokenCache::new(ServicePrincipal::new(&config()).expect("good authority")),
                sender: script.sender(RetryPolicy::JOB),
                script,
            }
        }

        async fn token(&self) -> Result<String, Error> {
            let token = self.cache.token(&self.sender).await?;
            Ok(token.header.to_str().expect("text").to_owned())
        }

        fn requests(&self) -> usize {
            self.script.seen().len()
        }
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_request_is_a_client_credentials_grant() {
        let fixture = Fixture::new(vec![token_answer("t1", 3599)]);
        assert_eq!(fixture.token().await.expect("granted"), "Bearer t1");
        let seen = &fixture.script.seen()[0];
        assert_eq!(
            (seen.method.as_str(), seen.uri.as_str()),
            (
                "POST",
                "https://login.microsoftonline.com/tenant-1/oauth2/v2.0/token"
            )
        );
        let mut form: Vec<(String, String)> = url::form_urlencoded::parse(&seen.body)
            .into_owned()
            .collect();
        form.sort();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            form,
            [
                pair("client_id", "app-1"),
                pair("client_secret", "p~secret+1"),
                pair("grant_type", "client_credentials"),
                pair("scope", "https://management.azure.com/.default"),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn many_requests_share_one_token_until_it_runs_low() {
        let fixture = Fixture::new(vec![token_answer("t1", 3600), token_answer("t2", 3600)]);
        let all = futures_util::future::join_all((0..20).map(|_| fixture.token())).await;
        assert!(
            all.iter()
                .all(|token| token.as_deref().ok() == Some("Bearer t1"))
        );
        assert_eq!(fixture.requests(), 1);
        pass(3600 - 310).await;
        assert_eq!(fixture.token().await.expect("cached"), "Bearer t1");
        pass(20).await;
        // One request renews it early; those beside it do not wait.
        let all = futures_util::future::join_all((0..3).map(|_| fixture.token())).await;
        let tokens: Vec<&str> = all
            .iter()
            .map(|token| token.as_deref().expect("served"))
            .collect();
        assert_eq!(tokens, ["Bearer t2", "Bearer t1", "Bearer t1"]);
        assert_eq!(fixture.requests(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lifetime_beyond_every_clock_is_cut() {
        let fixture = Fixture::new(vec![token_answer("t1", u64::MAX)]);
        assert_eq!(fixture.token().await.expect("granted"), "Bearer t1");
        pass(27 * 3600).await;
        assert_eq!(fixture.token().await.expect("cached"), "Bearer t1");
        assert_eq!(fixture.requests(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_early_refresh_costs_nothing_and_rests() {
        let unavailable = || json(400, &serde_json::json!({"error": "invalid_client"}));
        let fixture = Fixture::new(vec![
            token_answer("t1", 3600),
            unavailable(),
            token_answer("t2", 3600),
        ]);
        fixture.token().await.expect("granted");
        pass(3400).await;
        assert_eq!(fixture.token().await.expect("old one"), "Bearer t1");
        assert_eq!(fixture.token().await.expect("old one"), "Bearer t1");
        assert_eq!(fixture.requests(), 2);
        pass(31).await;
        assert_eq!(fixture.token().await.expect("new one"), "Bearer t2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_by_all_who_waited() {
        let fixture = Fixture::new(vec![json(
            401,
            &serde_json::json!({"error": "invalid_client", "error_codes": [7000215],
                "error_description": "AADSTS7000215: Invalid client secret provided. Trace ID: x"}),
        )]);
        let all = futures_util::future::join_all((0..5).map(|_| fixture.token())).await;
        assert!(all.iter().all(Result::is_err));
        assert_eq!(fixture.requests(), 1);
        // A later request is a new question.
        assert!(fixture.token().await.is_err());
        assert_eq!(fixture.requests(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_explained() {
        for (number, expected) in [
            (
                7_000_215,
                "give the value of the secret, not its id (AADSTS7000215)",
            ),
            (7_000_222, "expired"),
            (
                700_016,
                "application app-1 does not exist in tenant tenant-1",
            ),
            (90_002, "tenant tenant-1 does not exist in this cloud"),
            (900_023, "tenant_id tenant-1 is neither"),
            (500_011, "check cloud"),
            (50_058, "AADSTS50058: something else"),
        ] {
            let description = format!("AADSTS{number}: something else");
            let fixture = Fixture::new(vec![json(
                400,
                &serde_json::json!({"error": "e", "error_description": description}),
            )]);
            let error = fixture.token().await.expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Unauthorized);
            let text = error.to_string();
            assert!(
                text.starts_with("obtain a token for application app-1 in tenant tenant-1: "),
                "{text}"
            );
            assert!(text.contains(expected), "{text}");
            assert!(!text.contains("secret+1"), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_of_whatever_status_is_one_of_the_credentials() {
        for status in [400, 401, 403, 404, 405, 409, 410, 412, 416] {
            let fixture = Fixture::new(vec![answer(status, &[], "no such page")]);
            let error = fixture.token().await.expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Unauthorized, "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_in_trouble_is_asked_again_and_garbage_is_not_quoted() {
        let fixture = Fixture::new(vec![
            answer(503, &[], ""),
            lost(TransportErrorKind::Broken, true),
            token_answer("t1", 3600),
        ]);
        assert_eq!(fixture.token().await.expect("at last"), "Bearer t1");
        let fixture = Fixture::new(vec![answer(
            200,
            &[],
            "{\"token_type\":\"Bearer\",\"access_token\":[\"hidden\"]}",
        )]);
        let error = fixture.token().await.expect_err("no token");
        assert_eq!(error.kind(), ErrorKind::InvalidAnswer);
        assert!(!error.to_string().contains("hidden"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_in_trouble_does_not_refuse_the_credentials() {
        let fixture = Fixture::new(vec![json(
            503,
            &serde_json::json!({"error": "temporarily_unavailable",
                "error_description": "AADSTS90033: A transient error has occurred."}),
        )]);
        let error = fixture.token().await.expect_err("unavailable");
        assert_eq!(error.kind(), ErrorKind::Service);
    }

    /// ARM refuses the first token; one refresh for all, and each request is repeated once.
    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_replaced_once() {
        let script = Script::new(|request, _| {
            let token = request.headers().get("authorization");
            match token.map(|value| value.to_str().expect("text")) {
                None => token_answer(
                    &format!("{:?}", tokio::time::Instant::now())
                        .replace(|c: char| !c.is_ascii_digit(), ""),
                    3600,
                ),
                Some(_) => answer(401, &[], ""),
            }
        });
        let azure = script.azure(&CancellationToken::new());
        let error = azure.subscription().await.expect_err("refused for good");
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        let seen = script.seen();
        assert_eq!(
            seen.iter().filter(|s| s.authorization.is_empty()).count(),
            2
        );
        assert_eq!(
            seen.iter().filter(|s| !s.authorization.is_empty()).count(),
            2
        );

        let script = Script::new(|request, index| {
            if asks_for_token(request) {
                return token_answer(&format!("t{index}"), 3600);
            }
            match request.headers()["authorization"].to_str() {
                Ok("Bearer t0") => answer(401, &[], ""),
                _ => json(200, &serde_json::json!({"id": "x"})),
            }
        });
        let azure = script.azure(&CancellationToken::new());
        let reads = futures_util::future::join_all((0..8).map(|_| azure.subscription())).await;
        assert!(reads.iter().all(Result::is_ok));
        let seen = script.seen();
        assert_eq!(
            seen.iter().filter(|s| s.authorization.is_empty()).count(),
            2
        );
    }

    #[test]
    fn debug_shows_no_secret() {
        let cache = TokenCache::new(ServicePrincipal::new(&config()).expect("good authority"));
        assert!(!format!("{cache:?}").contains("secret"));
        assert!(!format!("{:?}", config()).contains("p~"));
    }

    #[test]
    fn codes_are_found_in_texts() {
        assert_eq!(aadsts("x AADSTS90002: y"), Some(90_002));
        assert_eq!(aadsts("AADSTS: y"), None);
        assert_eq!(aadsts("nothing"), None);
    }
}
