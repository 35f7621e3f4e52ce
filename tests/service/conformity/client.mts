// Uses the service through a client that openapi-typescript made of its document.
import createClient from "openapi-fetch";
import type { paths } from "./api";

const client = createClient<paths>({
  baseUrl: process.argv[2],
  headers: { Authorization: `Bearer ${process.argv[3]}` },
});

const submitted = await client.POST("/submit", {
  body: { workload: "echo", params: [1, 2], tags: ["node"] },
});
if (submitted.error) throw new Error(submitted.error.detail);
const id = submitted.data.task_id;

for (;;) {
  const asked = await client.GET("/status/{task_id}", { params: { path: { task_id: id } } });
  if (asked.error) throw new Error(asked.error.detail);
  if (asked.data.state === "succeeded") {
    console.log(JSON.stringify({ id, result: asked.data.result, state: asked.data.state }));
    break;
  }
  if (asked.data.state !== "queued" && asked.data.state !== "running") {
    throw new Error(`${asked.data.state}: ${asked.data.error?.message}`);
  }
  await new Promise((resolve) => setTimeout(resolve, 20));
}

const listed = await client.GET("/jobs", { params: { query: { tag: ["node"], limit: 5 } } });
if (listed.error) throw new Error(listed.error.detail);
console.log(JSON.stringify({ total: listed.data.total, first: listed.data.jobs[0].task_id }));

const missing = await client.GET("/status/{task_id}", { params: { path: { task_id: "none" } } });
console.log(JSON.stringify({ status: missing.error?.status, type: missing.error?.type }));
