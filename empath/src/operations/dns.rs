use empath_common::Domain;
use empath_control::{Answers, CachedAnswer, Cleared, DnsOverride, Failure, FailureCode, ResolvedHost};
use empath_delivery::{
    config::Override,
    resolve::{HostAddresses, Remembered},
};

use super::Operations;

impl Operations {
    pub(super) async fn cache_list(
        &self,
        domain: Option<&Domain>,
        answers: &mut Answers,
    ) -> Result<(), Failure> {
        for remembered in self.processor.resolver().cached(domain) {
            answers.send(&cached(remembered)).await?;
        }
        Ok(())
    }

    pub(super) async fn cache_clear(
        &self,
        domain: Option<&Domain>,
        answers: &mut Answers,
    ) -> Result<(), Failure> {
        answers.send(&Cleared { cleared: self.processor.resolver().forget(domain) as u64 }).await
    }

    pub(super) async fn refresh(&self, domain: &Domain, answers: &mut Answers) -> Result<(), Failure> {
        let found = answers.during(self.processor.resolver().refresh(domain)).await?;
        for host in found.map_err(|error| Failure::new(FailureCode::Failed, error.to_string()))? {
            answers.send(&resolved(domain, host)).await?;
        }
        Ok(())
    }

    pub(super) async fn override_list(&self, answers: &mut Answers) -> Result<(), Failure> {
        for (domain, host) in self.processor.overrides() {
            answers.send(&DnsOverride { domain, host: host.to_string() }).await?;
        }
        Ok(())
    }

    pub(super) async fn override_set(
        &self,
        domain: Domain,
        host: &str,
        answers: &mut Answers,
    ) -> Result<(), Failure> {
        let to: Override =
            host.parse().map_err(|error| Failure::new(FailureCode::BadRequest, format!("{error}")))?;
        let set = DnsOverride { domain: domain.clone(), host: to.to_string() };
        let refused = self.processor.set_override(&domain, to);
        refused.map_err(|error| Failure::new(FailureCode::Refused, error.to_string()))?;
        answers.send(&set).await
    }

    pub(super) async fn override_remove(&self, domain: Domain, answers: &mut Answers) -> Result<(), Failure> {
        let Some(host) = self.processor.remove_override(&domain) else {
            let message = format!("there is no override for {domain}");
            return Err(Failure::new(FailureCode::NotFound, message));
        };
        answers.send(&DnsOverride { domain, host: host.to_string() }).await
    }
}

fn cached(remembered: Remembered) -> CachedAnswer {
    CachedAnswer {
        name: remembered.name.into(),
        kind: remembered.kind.to_string(),
        records: remembered.records,
        error: remembered.error.map(ToOwned::to_owned),
        expires_in_seconds: remembered.expires_in.as_secs(),
        hits: remembered.hits,
    }
}

fn resolved(domain: &Domain, (host, found): HostAddresses) -> ResolvedHost {
    let error = found.as_ref().err().map(ToString::to_string);
    ResolvedHost {
        domain: domain.clone(),
        preference: host.preference,
        host: host.name.into(),
        addresses: found.unwrap_or_default(),
        error,
    }
}
