// Every inference call of the official JavaScript client against a started server that has the
// models of tests/support/talkers.py. Environment: SERVER (URL).
"use strict";

const assert = require("node:assert/strict");
const { Ollama } = require("ollama");

const ollama = new Ollama({ host: process.env.SERVER });
const SAID = "Hello there, friend.";
const messages = [{ role: "user", content: "hi" }];
const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "The weather.",
      parameters: {
        type: "object",
        required: ["city"],
        properties: { city: { type: "string", description: "Where." } },
      },
    },
  },
];

async function generate() {
  const whole = await ollama.generate({ model: "hello", prompt: "hi", options: { seed: 1 } });
  assert.equal(whole.response, SAID);
  assert.equal(whole.done_reason, "stop");
  assert.equal(whole.eval_count, 6);
  let text = "";
  let last;
  for await (const part of await ollama.generate({ model: "hello", prompt: "hi", stream: true })) {
    text += part.response;
    last = part;
  }
  assert.equal(text, SAID);
  assert.equal(last.done, true);
  const raw = await ollama.generate({ model: "hello", prompt: "hi\n", raw: true });
  assert.equal(raw.response, SAID);
  const more = await ollama.generate({ model: "hello", prompt: "more", context: whole.context });
  assert.equal(more.response, SAID);
  const loaded = await ollama.generate({ model: "hello", prompt: "" });
  assert.equal(loaded.done_reason, "load");
}

async function chat() {
  const whole = await ollama.chat({ model: "hello", messages });
  assert.equal(whole.message.content, SAID);
  let text = "";
  for await (const part of await ollama.chat({ model: "hello", messages, stream: true })) {
    text += part.message.content;
  }
  assert.equal(text, SAID);
}

async function thinkingAndTools(kind) {
  const thought = await ollama.chat({ model: `${kind}-thought`, messages, think: true });
  assert.equal(thought.message.thinking.trim(), "I see now");
  const format = { type: "object", properties: { a: { type: "integer" } }, required: ["a"] };
  const object = await ollama.chat({ model: `${kind}-object`, messages, format });
  assert.equal(JSON.parse(object.message.content).a, 1);
  const asked = await ollama.chat({ model: `${kind}-call`, messages, tools });
  const call = asked.message.tool_calls[0];
  assert.deepEqual(call.function.arguments, { city: "Paris" });
  const result = { role: "tool", tool_name: "get_weather", content: "22 degrees" };
  const after = [...messages, asked.message, result];
  let calls = 0;
  for await (const part of await ollama.chat({
    model: `${kind}-call`,
    messages: after,
    tools,
    stream: true,
  })) {
    calls += (part.message.tool_calls ?? []).length;
  }
  assert.equal(calls, 1);
}

async function vectors() {
  const both = await ollama.embed({ model: "vectors", input: ["hello", "world"], dimensions: 8 });
  assert.deepEqual(
    both.embeddings.map((vector) => vector.length),
    [8, 8],
  );
  const old = await ollama.embeddings({ model: "vectors", prompt: "hello" });
  assert.equal(old.embedding.length, 32);
}

async function therest() {
  const running = (await ollama.ps()).models.map((model) => model.name);
  assert.ok(running.includes("hello:latest"));
  await assert.rejects(ollama.chat({ model: "none", messages }), /model 'none' not found/);
  await assert.rejects(
    ollama.chat({ model: "hello", messages, think: true }),
    /"hello" does not support thinking/,
  );
  // A client that stops in mid-answer, and one that goes on right after it.
  const long = await ollama.generate({
    model: "hello",
    prompt: "x",
    format: "json",
    options: { num_predict: 20000, temperature: 2 },
    stream: true,
  });
  await assert.rejects(async () => {
    for await (const _ of long) long.abort();
  }, /abort/i);
  const began = Date.now();
  await ollama.generate({ model: "hello", prompt: "hi" });
  assert.ok(Date.now() - began < 2000);
  const unloaded = await ollama.generate({ model: "hello", prompt: "", keep_alive: 0 });
  assert.equal(unloaded.done_reason, "unload");
}

async function main() {
  await generate();
  await chat();
  await thinkingAndTools("go");
  await thinkingAndTools("jinja");
  await vectors();
  await therest();
  console.log("all calls done");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
