//! Long-running operations: begun by a request, polled until they end, taking effect at their end.
use super::{
    World,
    grant::{Access, sign},
};
use crate::{clock::Instant, faults::Action, scenario::PowerState, view::OperationView};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// What an operation does when it ends well.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// A disk or snapshot was created or changed.
    VolumeReady,
    VolumeDelete,
    Grant {
        access: Access,
        seconds: u64,
    },
    Revoke,
    VmReady,
    VmDelete,
    VmPower(PowerState),
    /// Nothing is left to do.
    Nothing,
}

/// What an ended operation shows.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Nothing to show.
    Done,
    /// A resource.
    Resource(Value),
    /// Access under this path of the data endpoint.
    Access(String),
    /// It failed.
    Failed { code: String, message: String },
}

/// A long-running operation.
#[derive(Debug)]
pub(crate) struct Operation {
    /// Which request began it.
    pub(crate) name: &'static str,
    /// Where its polling URLs live, e.g. `Microsoft.Compute/locations/westeurope/DiskOperations`.
    pub(crate) collection: String,
    /// Key of the resource.
    pub(crate) resource: String,
    pub(crate) started: Instant,
    pub(crate) ended: Option<(Instant, Outcome)>,
    polls: u32,
    endless: bool,
    failure: Option<(String, String)>,
    effect: Effect,
}

impl World {
    /// Begins an operation and, where nothing speaks against it, ends it at once. Answers its id.
    pub(crate) fn begin_operation(
        &mut self,
        name: &'static str,
        collection: String,
        resource: &str,
        effect: Effect,
        fault: Option<&Action>,
    ) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        let failure = if let Some(Action::FailOperation { code, message }) = fault {
            Some((code.clone(), message.clone()))
        } else {
            None
        };
        let operation = Operation {
            name,
            collection,
            resource: resource.to_owned(),
            started: self.now,
            ended: None,
            polls: 0,
            endless: matches!(fault, Some(Action::NeverEnding)),
            failure,
            effect,
        };
        self.operations.insert(id.clone(), operation);
        self.running.push(id.clone());
        self.try_end(&id);
        id
    }

    /// What opens the polling URLs of an operation, base64 as in URLs.
    pub(crate) fn polling_signature(&self, id: &str) -> String {
        URL_SAFE_NO_PAD.encode(sign(&self.key, id.as_bytes()))
    }

    /// Counts a poll of the operation.
    pub(crate) fn poll_operation(&mut self, id: &str) {
        self.try_end(id);
        if let Some(operation) = self.operations.get_mut(id) {
            operation.polls += 1;
        }
    }

    /// Counts a GET of a resource as a poll of what runs on it.
    pub(crate) fn poll_resource(&mut self, key: &str) {
        for id in self.running.clone() {
            if self
                .operations
                .get(&id)
                .is_some_and(|operation| operation.resource == key)
            {
                self.poll_operation(&id);
            }
        }
    }

    /// Ends what only waited for time to pass.
    pub(crate) fn settle(&mut self) {
        for id in self.running.clone() {
            self.try_end(&id);
        }
    }

    /// Lets everything proceed that was kept from it.
    pub(crate) fn release_operations(&mut self) {
        for operation in self.operations.values_mut() {
            operation.endless = false;
        }
        self.release_copies();
        self.settle();
    }

    /// The operation that runs on a resource.
    pub(crate) fn running_on(&self, key: &str) -> Option<&Operation> {
        self.running
            .iter()
            .filter_map(|id| self.operations.get(id))
            .find(|operation| operation.resource == key)
    }

    pub(crate) fn running_operations(&self) -> Vec<OperationView> {
        self.running
            .iter()
            .filter_map(|id| self.operations.get(id).map(|operation| (id, operation)))
            .map(|(id, operation)| OperationView {
                id: id.clone(),
                operation: operation.name.to_owned(),
                resource: operation.resource.clone(),
            })
            .collect()
    }

    fn try_end(&mut self, id: &str) {
        let policy = &self.settings.operations;
        let Some(operation) = self.operations.get(id) else {
            return;
        };
        let due = !operation.endless
            && operation.polls >= policy.polls_in_progress
            && self.now >= operation.started + policy.duration;
        if operation.ended.is_some() || !due {
            return;
        }
        let (resource, effect) = (operation.resource.clone(), operation.effect.clone());
        let outcome = match operation.failure.clone() {
            Some((code, message)) => {
                self.fail(&resource, &effect);
                Outcome::Failed { code, message }
            }
            None => self.take_effect(&resource, effect),
        };
        let now = self.now;
        if let Some(operation) = self.operations.get_mut(id) {
            operation.ended = Some((now, outcome));
        }
        self.running.retain(|running| running != id);
    }

    fn take_effect(&mut self, resource: &str, effect: Effect) -> Outcome {
        match effect {
            Effect::VolumeReady => self.volume_ready(resource),
            Effect::VolumeDelete => {
                self.volumes.remove(resource);
                Outcome::Done
            }
            Effect::Grant { access, seconds } => self.grant_access(resource, access, seconds),
            Effect::Revoke => self.revoke_access(resource),
            Effect::VmReady => {
                if let Some(vm) = self.vms.get_mut(resource) {
                    vm.provisioning = "Succeeded";
                }
                Outcome::Done
            }
            Effect::VmDelete => {
                self.delete_vm(resource);
                Outcome::Done
            }
            Effect::VmPower(state) => {
                if let Some(vm) = self.vms.get_mut(resource) {
                    vm.power = state;
                    vm.provisioning = "Succeeded";
                }
                Outcome::Done
            }
            Effect::Nothing => Outcome::Done,
        }
    }

    /// What a failed operation leaves behind: a created or changed resource stays, marked as failed.
    fn fail(&mut self, resource: &str, effect: &Effect) {
        match effect {
            Effect::VolumeReady | Effect::VolumeDelete => {
                if let Some(volume) = self.volumes.get_mut(resource) {
                    volume.provisioning = "Failed";
                }
            }
            Effect::VmReady | Effect::VmDelete | Effect::VmPower(_) => {
                if let Some(vm) = self.vms.get_mut(resource) {
                    vm.provisioning = "Failed";
                }
            }
            Effect::Grant { .. } | Effect::Revoke | Effect::Nothing => {}
        }
    }
}
