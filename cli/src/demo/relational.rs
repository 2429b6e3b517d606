//! Demo of the relational tier, if it is on: queries over all users, and a check that the rows equal the items of the
//! table.

use serde_json::Value;

use super::api_client::{ApiClient, ApiResponse};
use super::report::DemoReport;
use super::stores::StoreInspector;
use super::task_runner::TaskRunner;
use super::{DemoError, EXACT};
use millrace_local::stack::LocalStack;

pub(super) async fn show(
    report: &mut DemoReport,
    stack: &LocalStack,
    stores: &StoreInspector,
    browser: &ApiClient,
    task_runner: &TaskRunner<'_>,
) -> Result<(), DemoError> {
    if stack.postgres_url().is_none() {
        return Ok(());
    }
    report.heading("Users are searched by attributes that are not keys");
    task_runner.wait_until_drained().await?;
    let get = async |report: &mut DemoReport, path: &str| {
        let response = browser.send("GET", path, "", "").await?;
        report.show(&response.request, &response.describe());
        Ok::<_, DemoError>((response.status, json(&response)))
    };
    let (_, misspelled) = get(report, "/search/users?name_like=ada%20lovelase&fields=user_id,name").await?;
    report.check("a misspelled name finds Ada", ids(&misspelled) == ["ada"]);
    let exact = browser.send("GET", &format!("/search/users?attributes.exact={EXACT}"), "", "").await?;
    report.show("GET /search/users?attributes.exact=…", &exact.describe());
    report.check("a number of 38 digits finds Grace and is returned exactly", {
        ids(&json(&exact)) == ["grace"] && exact.body.contains(EXACT)
    });
    let (status, summary) = get(report, "/users/ada/summary").await?;
    report.check("a summary returns the latest record and the number of records", {
        status == 200
            && summary["records"] == 1
            && summary["user"]["name"].as_str().is_some_and(|name| name.starts_with("Ada"))
    });
    let (_, counted) = get(report, "/stats/users").await?;
    let source = stores.items(&stores.source).await?;
    report.check("the count equals the number of records in the table", counted["records"] == source.len());
    report.check("every response contains as_of", {
        [&misspelled, &summary, &counted].iter().all(|response| response["as_of"].is_string())
    });
    let found = task_runner.run_task(report, r#"{"task":"verify","recheck_after_seconds":0}"#).await?;
    report.check("verify finds every row equal to the table's item", {
        let differences = ["missing", "different", "resurrected", "extra", "in_flux"];
        let none = differences.iter().all(|kind| found.get(&format!("postgres.{kind}")) == 0);
        none && found.get("postgres.equal") == source.len() as u64
    });
    Ok(())
}

fn json(response: &ApiResponse) -> Value {
    serde_json::from_str(&response.body).unwrap_or_default()
}

fn ids(response: &Value) -> Vec<&str> {
    let users = response["users"].as_array().map_or(&[][..], Vec::as_slice);
    users.iter().filter_map(|user| user["user_id"].as_str()).collect()
}
