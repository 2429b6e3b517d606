//! The task runs of a console's stack, wherever they run: in this process, or in the state machine of a deployed stack.

use http::StatusCode;
use maud::{Markup, html};
use serde_json::{Map, Value};

use crate::stack_stores::{StackOrigin, StackUnavailable};
use crate::task_runs::TaskRunView;
use crate::{ConsoleContext, executions};

impl ConsoleContext {
    /// Returns whether this console starts tasks.
    pub(crate) fn allows_tasks(&self) -> bool {
        match &self.origin {
            StackOrigin::Local(_) => true,
            StackOrigin::Deployed(stack) => stack.allows_tasks(),
        }
    }

    /// Returns the latest runs, the newest first.
    ///
    /// # Errors
    /// [`StackUnavailable`], with what to do.
    pub(crate) async fn task_runs(&self) -> Result<Vec<TaskRunView>, StackUnavailable> {
        match &self.origin {
            StackOrigin::Local(_) => Ok(self.runs.all()),
            StackOrigin::Deployed(stack) => {
                let connection = stack.connect().await.map_err(StackUnavailable::unreadable)?;
                executions::list(&connection).await.map_err(StackUnavailable::unreadable)
            }
        }
    }

    /// Returns a run, or `None` if there is none of this ID.
    ///
    /// # Errors
    /// [`StackUnavailable`], with what to do.
    pub(crate) async fn task_run(&self, id: &str) -> Result<Option<TaskRunView>, StackUnavailable> {
        match &self.origin {
            StackOrigin::Local(_) => Ok(self.runs.get(id)),
            StackOrigin::Deployed(stack) => {
                let connection = stack.connect().await.map_err(StackUnavailable::unreadable)?;
                executions::get(&connection, id).await.map_err(StackUnavailable::unreadable)
            }
        }
    }

    /// Starts a task and returns the ID of the run.
    ///
    /// # Errors
    /// [`StackUnavailable`] if the task is not started, with what to do.
    pub(crate) async fn start_task(
        &self,
        task: &'static str,
        request: Map<String, Value>,
    ) -> Result<String, StackUnavailable> {
        match &self.origin {
            StackOrigin::Local(_) => {
                let stores = self.stores().await?;
                let started = self.runs.start(stores.maintenance, task, request, &self.clock);
                started.map_err(|reason| StackUnavailable { status: StatusCode::CONFLICT, reason })
            }
            StackOrigin::Deployed(stack) if stack.allows_tasks() => {
                let connection = stack.connect().await.map_err(StackUnavailable::unreadable)?;
                let started = executions::start(&connection, task, &request, self.clock.now()).await;
                started.map_err(StackUnavailable::unreadable)
            }
            StackOrigin::Deployed(_) => Err(StackUnavailable {
                status: StatusCode::FORBIDDEN,
                reason: "This console only reads: start it again with --allow-tasks.".to_owned(),
            }),
        }
    }

    /// Renders how to start a task with the AWS CLI, for a console that only reads.
    pub(crate) async fn start_command(&self, request: &Value) -> Markup {
        let machine = match &self.origin {
            StackOrigin::Local(_) => None,
            StackOrigin::Deployed(stack) => {
                let connection = stack.connect().await.ok();
                connection.and_then(|connection| connection.resources.state_machine().map(str::to_owned).ok())
            }
        };
        let machine = machine.unwrap_or_else(|| "MaintenanceStateMachineArn".to_owned());
        // The default Region of the AWS CLI may be a different one.
        let region = machine.split(':').nth(3).map(|region| format!(" --region {region}")).unwrap_or_default();
        // A quote in the JSON ends the argument of the shell.
        let input = request.to_string().replace('\'', "'\\''");
        html! {
            p.note {
                "This console only reads. Started with " code { "--allow-tasks" }
                ", it starts tasks here; the AWS CLI starts them, too:"
            }
            pre tabindex="0" data-copy="start of the task" {
                "aws stepfunctions start-execution --state-machine-arn " (machine) (region) " \\\n  --input '" (input) "'"
            }
        }
    }
}
