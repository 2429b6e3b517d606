//! Rule on the network of a function in a VPC: routes, endpoints and security groups.

use super::RuleOutcome;
use crate::deployment::{
    DeploymentForm, FunctionSettings, NetworkSettings, StreamDeployment, StreamMapping, TrafficPeer,
    VpcEndpointSettings,
};

/// Where the security groups of a function let it connect to.
struct AllowedEgress {
    /// Whether they allow port 443 of any address; endpoints of the gateway type and NAT gateways need that.
    is_open: bool,
    /// The security groups whose members they allow port 443 of.
    groups: Vec<String>,
    /// Whether they allow any traffic at all.
    is_any: bool,
}

/// A function in a VPC without a route to AWS's services.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn network_has_no_route(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let function = deployment.function_of(mapping)?;
    let Some(subnets) = function.subnets.get()? else { return Ok(None) };
    let network = &deployment.network;
    let egress = allowed_egress(network, function);
    if egress.as_ref().is_ok_and(|egress| !egress.is_any) {
        return Ok(Some("the security groups of the function allow no outbound traffic".to_owned()));
    }
    let groups = function.security_groups.known().map_or(&[][..], Vec::as_slice);
    let called = called_services(function);
    if deployment.form != DeploymentForm::Account {
        if !subnets.iter().all(|subnet| network.subnets.contains(subnet)) {
            return Err("the function's subnets are not part of this deployment".to_owned());
        }
        let none = "the function is in a VPC that has neither a VPC endpoint nor a NAT gateway";
        let routes =
            VpcRoutes { none, of: "the function's VPC", is_open: network.has_nat, endpoints: &network.endpoints };
        return routes.problem(&called, network, &egress, groups);
    }
    let mut problems = Vec::new();
    let mut unknown = None;
    for subnet in subnets {
        let routes = network.routed_subnets.get(subnet);
        let routes = routes.ok_or_else(|| format!("the routes of the subnet {subnet} are not read"))?;
        let Some(routes) = routes.get()? else { continue };
        let none = format!("{subnet} has neither a VPC endpoint nor a route out of the VPC");
        let routes = VpcRoutes { none: &none, of: subnet, is_open: routes.is_open, endpoints: &routes.endpoints };
        match routes.problem(&called, network, &egress, groups) {
            Ok(problem) => problems.extend(problem),
            Err(reason) => unknown = Some(reason),
        }
    }
    match (problems.is_empty(), unknown) {
        (false, _) => Ok(Some(problems.join(", "))),
        (true, Some(reason)) => Err(reason),
        (true, None) => Ok(None),
    }
}

/// The ways out of a subnet.
struct VpcRoutes<'n> {
    /// The problem of a subnet without one.
    none: &'n str,
    /// The subnet, as a phrase.
    of: &'n str,
    /// Whether a route leaves the VPC, to any service.
    is_open: bool,
    endpoints: &'n [VpcEndpointSettings],
}

impl VpcRoutes<'_> {
    fn problem(
        &self,
        called: &[&'static str],
        network: &NetworkSettings,
        egress: &Result<AllowedEgress, String>,
        groups: &[String],
    ) -> RuleOutcome {
        if !self.is_open && self.endpoints.is_empty() {
            return Ok(Some(self.none.to_owned()));
        }
        let is_reached = |endpoint: &VpcEndpointSettings| lets_in(network, endpoint, egress, groups);
        // The calls of another function are not known: it must reach one of the endpoints.
        if called.is_empty() {
            let reached: Vec<_> = self.endpoints.iter().map(is_reached).collect();
            if self.is_open || reached.contains(&Ok(true)) {
                return Ok(None);
            }
            if let Some(reason) = reached.into_iter().find_map(Result::err) {
                return Err(reason);
            }
            return Ok(Some(format!("the security groups let the function reach no endpoint of {}", self.of)));
        }
        let mut missing = Vec::new();
        let mut closed = Vec::new();
        let mut unknown = None;
        for service in called {
            let mut ways: Vec<Result<bool, String>> = Vec::new();
            if self.is_open {
                ways.push(egress.as_ref().map(|egress| egress.is_open).map_err(Clone::clone));
            }
            for endpoint in self.endpoints {
                match endpoint.service.known() {
                    Some(name) if name.rsplit('.').next() == Some(service) => ways.push(is_reached(endpoint)),
                    Some(_) => {}
                    None => ways.push(endpoint.service.get().map(|_| false)),
                }
            }
            if ways.contains(&Ok(true)) {
                continue;
            }
            match ways.iter().find_map(|way| way.as_ref().err()) {
                Some(reason) => unknown = Some(reason.clone()),
                None if ways.is_empty() => missing.push(*service),
                None => closed.push(*service),
            }
        }
        let mut problems = Vec::new();
        if !missing.is_empty() {
            let article = if self.of.starts_with("the ") { "no endpoint" } else { "no VPC endpoint" };
            problems.push(format!("{} has {article} for {}", self.of, missing.join(" and ")));
        }
        if !closed.is_empty() {
            problems.push(format!(
                "the security groups of the function and of the endpoints of {} do not both allow port 443 for {}",
                self.of,
                closed.join(" and ")
            ));
        }
        match (problems.is_empty(), unknown) {
            (false, _) => Ok(Some(problems.join(", "))),
            (true, Some(reason)) => Err(reason),
            (true, None) => Ok(None),
        }
    }
}

/// Returns where the security groups of a function let it connect to. The rules of several groups add up.
fn allowed_egress(network: &NetworkSettings, function: &FunctionSettings) -> Result<AllowedEgress, String> {
    let names = function.security_groups.get()?.ok_or("the function's security groups are not known")?;
    let mut allowed = AllowedEgress { is_open: false, groups: Vec::new(), is_any: false };
    let mut unknown = None;
    for name in names {
        let Some(group) = network.groups.get(name) else {
            unknown = Some(unread_group(network, name));
            continue;
        };
        unknown = unknown.or_else(|| group.unknown.clone());
        let Some(rules) = &group.egress else {
            (allowed.is_open, allowed.is_any) = (true, true);
            continue;
        };
        for rule in rules {
            allowed.is_any |= rule.peer != TrafficPeer::NoHost;
            match &rule.peer {
                TrafficPeer::Addresses => allowed.is_open |= rule.allows_https,
                TrafficPeer::Group(group) if rule.allows_https => allowed.groups.push(group.clone()),
                TrafficPeer::Group(_) | TrafficPeer::NoHost => {}
            }
        }
    }
    match unknown {
        Some(reason) if !allowed.is_open => Err(reason),
        _ => Ok(allowed),
    }
}

fn unread_group(network: &NetworkSettings, name: &str) -> String {
    let reason = || format!("the security group {name} is not part of this deployment");
    network.unknown_groups.clone().unwrap_or_else(reason)
}

/// Returns whether the security groups at both ends let a function connect to port 443 of an endpoint.
fn lets_in(
    network: &NetworkSettings,
    endpoint: &VpcEndpointSettings,
    egress: &Result<AllowedEgress, String>,
    groups: &[String],
) -> Result<bool, String> {
    let egress = egress.as_ref().map_err(Clone::clone)?;
    let Some(of_endpoint) = &endpoint.groups else { return Ok(egress.is_open) };
    let of_endpoint = of_endpoint.get()?.ok_or("an endpoint uses the default security group, which is not read")?;
    if !egress.is_open && !of_endpoint.iter().any(|group| egress.groups.contains(group)) {
        return Ok(false);
    }
    let mut unknown = None;
    for name in of_endpoint {
        let Some(group) = network.groups.get(name) else {
            unknown = Some(unread_group(network, name));
            continue;
        };
        let is_allowed = |peer: &TrafficPeer| match peer {
            TrafficPeer::Addresses => true,
            TrafficPeer::Group(group) => groups.contains(group),
            TrafficPeer::NoHost => false,
        };
        if group.ingress.iter().any(|rule| rule.allows_https && is_allowed(&rule.peer)) {
            return Ok(true);
        }
        unknown = unknown.or_else(|| group.unknown.clone());
    }
    unknown.map_or(Ok(false), Err)
}

/// Returns the services that a function certainly calls: those of its replicas, and of its quarantine.
fn called_services(function: &FunctionSettings) -> Vec<&'static str> {
    let has_replica = function.replicas.iter().any(|replica| replica.known().is_some());
    let has_bucket = function.is_own && function.environment.contains_key("FAILURE_BUCKET");
    [("dynamodb", has_replica), ("s3", has_bucket)]
        .into_iter()
        .filter(|(_, calls)| *calls)
        .map(|(name, _)| name)
        .collect()
}
