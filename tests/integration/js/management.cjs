// Every management call of the official JavaScript client against a started server.
// Environment: SERVER (URL), REGISTRY (host:port of a second one), GGUF (path of a model file).
"use strict";

const assert = require("node:assert/strict");
const { createHash } = require("node:crypto");
const { readFileSync } = require("node:fs");
const { Ollama } = require("ollama");

const { SERVER, REGISTRY, GGUF } = process.env;
const ollama = new Ollama({ host: SERVER });

function sha256(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}

async function statuses(stream) {
  const seen = [];
  for await (const part of stream) seen.push(part.status);
  return seen;
}

async function names() {
  return (await ollama.list()).models.map((model) => model.name).sort();
}

async function main() {
  const version = await ollama.version();
  assert.match(version.version, /^\d+\.\d+\.\d+/);
  assert.deepEqual(await names(), []);

  // This client has no call for blobs: it leaves them to a plain POST.
  const bytes = readFileSync(GGUF);
  const digest = `sha256:${sha256(bytes)}`;
  const sent = await fetch(`${SERVER}/api/blobs/${digest}`, { method: "POST", body: bytes });
  assert.equal(sent.status, 201);

  const created = await ollama.create({
    model: "js/tiny",
    files: { "tiny.gguf": digest },
    stream: true,
  });
  assert.equal((await statuses(created)).at(-1), "success");
  const child = await ollama.create({
    model: "js/child",
    from: "js/tiny",
    system: "You are Mario.",
    template: "{{ .System }} {{ .Prompt }}",
    license: ["MIT"],
    parameters: { temperature: 0.7, stop: ["<|end|>"] },
    messages: [{ role: "user", content: "hi" }],
  });
  assert.equal(child.status, "success");

  const shown = await ollama.show({ model: "js/child" });
  assert.equal(shown.system, "You are Mario.");
  assert.equal(shown.template, "{{ .System }} {{ .Prompt }}");
  assert.equal(shown.license, "MIT");
  assert.match(shown.parameters, /temperature +0\.7/);
  assert.equal(shown.details.family, "llama");
  await assert.rejects(ollama.show({ model: "js/none" }), /not found/);

  const far = `${REGISTRY}/js/child:v1`;
  await ollama.copy({ source: "js/child", destination: far });
  assert.deepEqual(await names(), [far, "js/child:latest", "js/tiny:latest"].sort());
  const before = (await ollama.list()).models.find((model) => model.name === far);
  assert.equal((await ollama.push({ model: far, insecure: true })).status, "success");
  await ollama.delete({ model: far });
  const pulled = await ollama.pull({ model: far, insecure: true, stream: true });
  assert.equal((await statuses(pulled)).at(-1), "success");
  const after = (await ollama.list()).models.find((model) => model.name === far);
  // Not the digest from before: a push sends the manifest without its final newline.
  const kept = await fetch(`http://${REGISTRY}/v2/js/child/manifests/v1`);
  assert.equal(after.digest, sha256(Buffer.from(await kept.arrayBuffer())));
  assert.equal(after.size, before.size);

  assert.deepEqual((await ollama.ps()).models, []);
  for (const model of [far, "js/child", "js/tiny"]) await ollama.delete({ model });
  await assert.rejects(ollama.delete({ model: "js/tiny" }), /not found/);
  assert.deepEqual(await names(), []);
  console.log("all calls done");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
