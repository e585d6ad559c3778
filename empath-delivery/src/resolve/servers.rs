//! The name servers that a resolver asks.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc};

use hickory_resolver::{
    NameServerPool, PoolContext, TlsConfig,
    config::{ConnectionConfig, NameServerConfig, ResolverOpts},
    net::{
        DnsError, NetError,
        runtime::TokioRuntimeProvider,
        xfer::{DnsHandle as _, FirstAnswer as _, RetryDnsHandle},
    },
    proto::{
        op::{DnsRequestOptions, Query, ResponseCode},
        rr::{self, Name},
    },
    system_conf::read_system_conf,
};

use super::{
    DnsConfig,
    lookup::{Answer, Lookup, LookupError, Question, RecordType},
    reading::{Chain, Read},
};

/// Queries in flight on one connection to a name server.
const MAX_QUERIES: usize = 1024;

/// The name servers can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The system's resolver configuration can't be read.
    #[error("cannot read the system's name servers; set `delivery.dns.servers`")]
    System(#[source] io::Error),
    /// The resolver refused its configuration.
    #[error("cannot set up the resolver")]
    Setup(#[source] io::Error),
}

/// The configured name servers, or the system's. They are asked over UDP, and over TCP where an answer is too large.
pub(super) struct NameServers {
    /// All of them: the quickest answer counts.
    all: Pool,
    /// Each by itself, where there are several: one that only fails, and quickly, must not speak for the others.
    each: Vec<Pool>,
    options: DnsRequestOptions,
}

type Pool = RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>;

impl NameServers {
    pub(super) fn new(config: &DnsConfig) -> Result<Self, ResolverError> {
        let (servers, mut options) = if config.servers.is_empty() {
            let (system, options) =
                read_system_conf().map_err(|error| ResolverError::System(io::Error::other(error)))?;
            (system.name_servers, options)
        } else {
            let server = |address: &SocketAddr| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = address.port();
                    connection
                });
                NameServerConfig::new(address.ip(), true, connections.into())
            };
            (config.servers.iter().map(server).collect(), ResolverOpts::default())
        };
        options.timeout = config.timeout;
        options.max_active_requests = MAX_QUERIES;
        let mut request = DnsRequestOptions::default();
        request.use_edns = options.edns0;
        request.edns_payload_len = options.edns_payload_len;
        let tls = TlsConfig::new().map_err(|error| ResolverError::Setup(io::Error::other(error)))?;
        let context = Arc::new(PoolContext::new(options, tls));
        let pool = |servers: Vec<NameServerConfig>, repetitions| {
            let provider = TokioRuntimeProvider::default();
            RetryDnsHandle::new(
                NameServerPool::from_config(servers, Arc::clone(&context), provider),
                repetitions,
            )
        };
        let each = servers.iter().filter(|_| servers.len() > 1).map(|server| pool(vec![server.clone()], 0));
        let each = each.collect();
        // The library counts repetitions.
        let all = pool(servers, config.attempts.saturating_sub(1));
        Ok(Self { all, each, options: request })
    }

    async fn ask(&self, name: &Name, kind: rr::RecordType) -> Result<Read, LookupError> {
        let mut said = self.ask_one(&self.all, name, kind).await;
        for pool in &self.each {
            if !matches!(said, Err(LookupError::Failed | LookupError::Refused)) {
                break;
            }
            match self.ask_one(pool, name, kind).await {
                Err(error) if !error.is_definite() => {}
                better => said = better,
            }
        }
        said
    }

    async fn ask_one(&self, pool: &Pool, name: &Name, kind: rr::RecordType) -> Result<Read, LookupError> {
        // The name is fully qualified: `example.test` is never `example.test.our.domain`.
        let query = Query::query(name.clone(), kind);
        match pool.lookup(query, self.options).first_answer().await {
            Ok(response) => Ok(Read::of(&response, name, kind)),
            Err(error) => Err(failure(&error)),
        }
    }
}

impl Lookup for NameServers {
    fn look_up(&self, question: Question) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(async move {
            let kind = match question.kind {
                RecordType::Mx => rr::RecordType::MX,
                RecordType::A => rr::RecordType::A,
                RecordType::Aaaa => rr::RecordType::AAAA,
            };
            // Longer than a name in the DNS may be.
            let Ok(mut name) = Name::from_ascii(question.name.as_str()) else {
                return Err(LookupError::NoSuchName(None));
            };
            name.set_fqdn(true);
            let mut chain = Chain::default();
            loop {
                let read = match self.ask(&name, kind).await {
                    Ok(read) => read,
                    Err(error) => return Err(chain.shorten(error)),
                };
                match chain.follow(read) {
                    Ok(answer) => return answer,
                    Err(target) => name = target,
                }
            }
        })
    }
}

fn failure(error: &NetError) -> LookupError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let ttl = none.negative_ttl.map(super::reading::ttl);
            match none.response_code {
                ResponseCode::NXDomain => LookupError::NoSuchName(ttl),
                ResponseCode::NoError => LookupError::NoRecords(ttl),
                ResponseCode::Refused => LookupError::Refused,
                _ => LookupError::Failed,
            }
        }
        NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => LookupError::Refused,
        // A server that can't be reached answers no more than one that is silent.
        NetError::Timeout | NetError::Io(_) | NetError::NoConnections | NetError::Busy => {
            LookupError::Timeout
        }
        _ => LookupError::Failed,
    }
}
