// Runs the handler of a module under the Lambda Runtime API: node runtime.mjs FILE NAME.
//
// Lambda's own runtime for Node.js requires a C++ compiler to install; this one makes the same requests with node:http.
// A handler with three parameters receives a callback, as in Lambda's runtimes up to Node.js 22.

import http from "node:http";
import path from "node:path";
import { pathToFileURL } from "node:url";

const PREFIX = "/2018-06-01/runtime";
const [file, name] = process.argv.slice(2);
const [hostname, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

/** Sends a request to the Runtime API; returns the headers and the text of the response. */
function call(method, operation, body) {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { "content-length": Buffer.byteLength(body) };
    const options = { agent, hostname, port, method, path: PREFIX + operation, headers };
    const request = http.request(options, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("end", () => resolve({ headers: response.headers, text: Buffer.concat(chunks).toString() }));
    });
    request.on("error", reject);
    request.end(body);
  });
}

/** Calls the handler; returns its result, whether it is a promise or passed to a callback. */
function invoke(handler, event, context) {
  if (handler.length < 3) return handler(event, context);
  return new Promise((resolve, reject) => {
    handler(event, context, (error, result) => (error ? reject(error) : resolve(result)));
  });
}

const module = await import(pathToFileURL(path.resolve(file)));
const handler = module[name] ?? module.default[name];
for (;;) {
  const { headers, text } = await call("GET", "/invocation/next");
  const id = headers["lambda-runtime-aws-request-id"];
  const deadline = Number(headers["lambda-runtime-deadline-ms"]);
  const context = {
    awsRequestId: id,
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    invokedFunctionArn: headers["lambda-runtime-invoked-function-arn"],
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    getRemainingTimeInMillis: () => deadline - Date.now(),
  };
  try {
    const result = await invoke(handler, JSON.parse(text), context);
    await call("POST", `/invocation/${id}/response`, JSON.stringify(result ?? null));
  } catch (error) {
    const body = { errorType: error?.name, errorMessage: String(error?.message ?? error), trace: [error?.stack] };
    await call("POST", `/invocation/${id}/error`, JSON.stringify(body));
  }
}
