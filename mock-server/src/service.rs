//! One request from its route to its answer: counters, faults, state, and the headers that every answer has.
use crate::{
    Config, Counters, Error, Fault, Link, Scenario, StateView, account,
    arm::{self, error::ArmError},
    blob,
    clock::{self, Clock},
    control,
    effect::{after, before, is_felt, is_over_tls},
    faults::{Action, Faults},
    message::{Request, Response},
    observer::{Flight, Observer},
    outage::Outage,
    secrets::Watch,
    state::{Settings, World, content::Spool},
    sync::lock,
    token,
};
use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

/// The part of the emulator that a request's path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Area {
    /// `/_emulator/…`
    Control,
    /// `/{tenant}/oauth2/…` and `/{tenant}/v2.0/…`
    Token,
    /// `/md-…`
    Blob,
    /// `/subscriptions…`
    Arm,
    /// `/<storage account>/…`
    Account,
    /// Anything else.
    Unknown,
}

/// An answer and what the connection is to do with it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) response: Response,
    pub(crate) wire: Wire,
    pub(crate) delay: Duration,
    /// Absent for the control interface.
    pub(crate) flight: Option<Flight>,
}

/// What happens to the answer on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// It arrives.
    Whole,
    /// The connection is reset before it.
    Reset,
    /// The connection closes after this many bytes of body.
    Cut(u64),
    /// Nothing comes after this many bytes of body.
    Stall(u64),
}

/// What the counters call a question for a name.
const LOOK_UP: &str = "LookUp";

/// Everything behind the listeners.
#[derive(Debug)]
pub(crate) struct Service {
    world: Mutex<World>,
    settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) faults: Faults,
    pub(crate) observer: Observer,
    pub(crate) secrets: Watch,
    link: Mutex<Link>,
    pub(crate) outage: Outage,
    pub(crate) spool: Spool,
    pub(crate) ca_pem: String,
}

impl Service {
    pub(crate) fn new(config: &Config, ca_pem: String) -> Result<Self, Error> {
        let settings = Settings::from(config);
        let clock = Clock::default();
        let key = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
        let key = key.iter().flat_map(|id| id.as_bytes().to_vec()).collect();
        let world = World::new(settings.clone(), key, clock.now(), &config.scenario)?;
        let spool = match &config.spool_dir {
            None => Spool::Memory,
            Some(dir) => Spool::in_dir(dir).map_err(|source| Error::File {
                path: dir.clone(),
                source,
            })?,
        };
        Ok(Self {
            world: Mutex::new(world),
            settings,
            clock,
            faults: Faults::default(),
            observer: Observer::default(),
            secrets: Watch::default(),
            link: Mutex::new(config.link),
            outage: Outage::default(),
            spool,
            ca_pem,
        })
    }

    /// Replaces the world. Tokens stay valid as far as their principals still exist.
    pub(crate) fn load(&self, scenario: &Scenario) -> Result<(), Error> {
        let key = lock(&self.world).key.clone();
        let world = World::new(self.settings.clone(), key, self.clock.now(), scenario)?;
        *lock(&self.world) = world;
        Ok(())
    }

    /// The world at this moment.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        let mut world = lock(&self.world);
        world.arrive(self.clock.now());
        world
    }

    pub(crate) fn has_account(&self, name: &str) -> bool {
        lock(&self.world).accounts.contains_key(name)
    }

    pub(crate) fn view(&self) -> StateView {
        self.world().view()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.observer.counters()
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.faults.add(fault);
    }

    pub(crate) fn clear_faults(&self) {
        self.faults.clear();
        self.outage.end();
    }

    pub(crate) fn link(&self) -> Link {
        *lock(&self.link)
    }

    pub(crate) fn set_link(&self, link: Link) {
        *lock(&self.link) = link;
    }

    /// Whether a name is known now. Counted, and subject to faults, like a request.
    pub(crate) fn knows_name(&self, name: &str) -> bool {
        let flight = self.observer.begin(LOOK_UP, 0);
        let now = self.clock.now();
        if let Some(due) = self.faults.next(LOOK_UP, name) {
            if let Action::ForgetNames { seconds } = due.action {
                self.outage.forget_names(now, seconds);
                self.outage.cut.send_replace(());
            }
            due.settle(matches!(due.action, Action::ForgetNames { .. }));
        }
        let known = !self.outage.is_unknown(now);
        flight.answered(if known { 200 } else { 404 });
        known
    }

    /// Answers a request.
    pub(crate) fn handle(&self, area: Area, request: &Request) -> Reply {
        if area == Area::Control {
            let response = control::respond(self, request);
            return Reply {
                response,
                wire: Wire::Whole,
                delay: Duration::ZERO,
                flight: None,
            };
        }
        let route = arm::find(request);
        let operation = match area {
            Area::Control | Area::Unknown => None,
            Area::Token => token::operation(request),
            Area::Blob => blob::operation(request),
            Area::Account => account::operation(request),
            Area::Arm => route.as_ref().map(|(route, _)| route.name),
        };
        let Some(operation) = operation else {
            return self.unmodelled(area, request, "this path, method or query");
        };
        let body_len = u64::try_from(request.body.len()).unwrap_or(u64::MAX);
        let flight = self.observer.begin(operation, body_len);
        let due = self.faults.next(operation, &request.target);
        let fault = due.as_ref().map(|due| &due.action);
        // A request without TLS sees no certificate.
        let fault = fault.filter(|action| {
            !matches!(action, Action::UntrustedCertificate { .. }) || is_over_tls(request)
        });
        let sent = request;
        let heeded = match fault {
            Some(Action::Ignore { name }) => Some(request.without(name)),
            Some(_) | None => None,
        };
        let request = heeded.as_ref().unwrap_or(sent);
        let mut world = self.world();
        self.secrets.look(&world, operation, request);
        world.skew = 0;
        match fault {
            Some(Action::Refuse { seconds }) => self.outage.refuse(world.now, *seconds),
            Some(Action::UntrustedCertificate { seconds }) => {
                self.outage.distrust(world.now, *seconds);
            }
            Some(Action::ForgetNames { seconds }) => {
                self.outage.forget_names(world.now, *seconds);
            }
            Some(Action::SkewClock { seconds }) => world.skew_clock(*seconds),
            _ => {}
        }
        let mut reply = Reply {
            response: Response::empty(500),
            wire: Wire::Whole,
            delay: Duration::ZERO,
            flight: Some(flight),
        };
        if let Some(response) = before(&mut world, area, request, fault) {
            reply.response = response;
        } else {
            reply.response = match (area, route) {
                (Area::Token, _) => {
                    let response = token::respond(&world, request, operation);
                    self.secrets.note(&response);
                    response
                }
                (Area::Blob, _) => {
                    let operation = blob::operation(request).unwrap_or(operation);
                    blob::respond(&mut world, &self.spool, request, operation)
                }
                (Area::Account, _) => {
                    account::respond(&mut world, &self.spool, request, operation, fault)
                }
                (Area::Arm, Some((route, captures))) => {
                    match route.respond(&mut world, request, captures, fault) {
                        Ok(response) => response,
                        Err(error) => self.refused(request, error),
                    }
                }
                (Area::Control | Area::Unknown | Area::Arm, _) => Response::empty(501),
            };
            if reply.response.status == 501 && matches!(area, Area::Blob | Area::Account) {
                self.observer
                    .unmodelled(describe(request, "a header of the data endpoint"));
            }
        }
        if let Some(due) = &due {
            due.settle(is_felt(&world, sent, &reply.response, &due.action));
        }
        after(&mut reply, fault);
        finish(&mut reply.response, area, request, &world);
        reply
    }

    fn refused(&self, request: &Request, error: ArmError) -> Response {
        if error.unmodelled {
            self.observer.unmodelled(describe(request, error.message()));
        }
        error.into_response()
    }

    fn unmodelled(&self, area: Area, request: &Request, what: &str) -> Reply {
        let text = describe(request, what);
        self.observer.unmodelled(text.clone());
        let mut response =
            ArmError::unmodelled(format!("The emulator does not model {text}")).into_response();
        finish(&mut response, area, request, &lock(&self.world));
        Reply {
            response,
            wire: Wire::Whole,
            delay: Duration::ZERO,
            flight: None,
        }
    }
}

/// Method and path without the query, which may hold signatures.
fn describe(request: &Request, what: &str) -> String {
    let names: Vec<&str> = request
        .query
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    format!(
        "{} {} (query: {}): {what}",
        request.method,
        request.path,
        names.join(", ")
    )
}

/// The headers that every answer of an area has.
fn finish(response: &mut Response, area: Area, request: &Request, world: &World) {
    let has = |response: &Response, wanted: &str| {
        response.headers.iter().any(|(name, _)| *name == wanted)
    };
    if !has(response, "x-ms-request-id") {
        response
            .headers
            .push(("x-ms-request-id", uuid::Uuid::new_v4().to_string()));
    }
    // Not hyper's: the clock may have been moved.
    if area != Area::Control {
        response.headers.push(("date", clock::http_date(world.now)));
    }
    match area {
        Area::Arm => {
            let correlation = request
                .header("x-ms-correlation-request-id")
                .map(str::to_owned);
            let correlation = correlation.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
            let time = clock::iso(world.now);
            let routing = format!(
                "WESTEUROPE:{}:{correlation}",
                &time[..19].replace(['-', ':'], "")
            );
            response
                .headers
                .push(("x-ms-correlation-request-id", correlation));
            response.headers.push(("x-ms-routing-request-id", routing));
            let (kind, left) = match request.method.as_str() {
                "GET" | "HEAD" => ("x-ms-ratelimit-remaining-subscription-reads", "11999"),
                "DELETE" => ("x-ms-ratelimit-remaining-subscription-deletes", "14999"),
                _ => ("x-ms-ratelimit-remaining-subscription-writes", "1199"),
            };
            // The front end refuses before it counts.
            let by_front_end = response
                .headers
                .contains(&("x-ms-failure-cause", "gateway".to_owned()));
            if !by_front_end {
                response.headers.push((kind, left.to_owned()));
            }
            response
                .headers
                .push(("cache-control", "no-cache".to_owned()));
            response
                .headers
                .push(("x-content-type-options", "nosniff".to_owned()));
        }
        Area::Blob | Area::Account => {
            let version = request
                .header("x-ms-version")
                .or_else(|| request.query("sv"));
            response
                .headers
                .push(("x-ms-version", version.unwrap_or("2018-03-28").to_owned()));
            response.headers.push((
                "server",
                "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0".to_owned(),
            ));
            if let Some(id) = request.header("x-ms-client-request-id") {
                response
                    .headers
                    .push(("x-ms-client-request-id", id.to_owned()));
            }
        }
        Area::Token | Area::Control | Area::Unknown => {}
    }
}
