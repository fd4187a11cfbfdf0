"use strict";
// Trajectory of an agent: what it thought, asked, was shown and chose, step by step, with time and cost.
(() => {
  const page = window.KNOWGEN;
  const { make } = page;

  const words = (name) => name.replaceAll("_", " ");
  const count = (n, word, many) => n.toLocaleString("en") + " " + (n === 1 ? word : many || word + "s");
  const freeText = (text, kind) => make("p", { dir: "auto", class: "free-text" + (kind ? " " + kind : "") }, text);
  const raw = (text, label) => make("pre", { dir: "auto", tabindex: "0", role: "region", "aria-label": label }, text);

  function duration(seconds) {
    if (seconds < 10) return seconds.toFixed(2) + " s";
    return seconds < 120 ? seconds.toFixed(0) + " s" : Math.round(seconds / 60) + " min";
  }

  // What costs nothing and has no tokens is not a paid call.
  function money(cost, tokens) {
    if (cost === null) return tokens ? "price not known" : "";
    if (!cost && !tokens) return "";
    return cost === 0 ? "$0" : "$" + cost.toFixed(cost < 0.1 ? 4 : 2);
  }

  function pairs(entries) {
    if (!entries.length) return null;
    return make("dl", { class: "pairs" }, entries.flatMap(([name, text]) => [make("dt", { class: "free-text" }, words(name)), make("dd", { dir: "auto", class: "free-text" }, text)]));
  }

  function picture(entry, step) {
    const name = [entry.id, entry.title].filter(Boolean).join(": ") || "image";
    const caption = make("figcaption", null, make("b", null, entry.id || "image"), entry.new === false ? " shown before" : null, entry.title ? make("span", { dir: "auto", class: "free-text" }, entry.title) : null);
    if (!entry.image || entry.image.fault) return make("figure", null, make("div", { class: "state" }, make("span", { dir: "auto" }, entry.image ? entry.image.fault : "not an image")), caption);
    const link = page.frame(entry.image, (step || "chosen reference") + ", " + name, null, entry.url || null);
    return make("figure", null, link, caption);
  }

  function call(one) {
    return make("div", { class: "call" }, make("p", { class: "free-text" }, make("b", null, one.name)), pairs(one.arguments), one.text ? freeText(one.text) : null);
  }

  function spent(name, part) {
    const tokens = part.input + part.output;
    if (!part.seconds && !tokens && !part.cost) return null;
    return [name + " " + duration(part.seconds), tokens ? part.input.toLocaleString("en") + " tokens in, " + part.output.toLocaleString("en") + " out" : "", money(part.cost, tokens)].filter(Boolean).join(", ");
  }

  // Each step's share of the longest one; the same times stand beside it as text.
  function bar(step, longest) {
    const element = make("div", { class: "bar", "aria-hidden": "true" });
    for (const [kind, part] of [["policy", step.policy], ["tools", step.tools]]) {
      const share = make("i", { class: kind });
      share.style.setProperty("width", (longest ? (100 * part.seconds) / longest : 0).toFixed(2) + "%");
      element.append(share);
    }
    return element;
  }

  function title(step) {
    const names = [...new Set(step.calls.map((one) => one.name))].join(", ");
    const place = step.round === 0 ? "Last call" : "Round " + step.round;
    return place + (names ? " · " + names : step.error ? "" : " · answer");
  }

  function warnings(step) {
    const blocked = new Map();
    for (const reason of step.blocked) blocked.set(reason, (blocked.get(reason) || 0) + 1);
    return [
      step.error ? freeText(step.error, "fault") : null,
      ...[...blocked].map(([reason, times]) => freeText((reason === "leak_blocked" ? "leak blocked" : "blocked: " + words(reason)) + (times > 1 ? " (" + times + " times)" : ""), "fault")),
      step.capped ? freeText(count(step.capped, "token") + " cut from the results", "fault") : null,
      step.finish === "length" ? freeText("the reply was cut at its maximum length", "fault") : null,
    ];
  }

  function item(step, longest) {
    const name = title(step);
    const facts = [spent("policy", step.policy), spent("tools", step.tools)].filter(Boolean).join(" · ");
    const images = step.images.length ? make("div", { class: "pictures" }, step.images.map((entry) => picture(entry, name))) : null;
    return make(
      "li",
      null,
      make("h5", null, name),
      bar(step, longest),
      facts ? make("p", { class: "spent" }, facts) : null,
      step.instruction ? freeText("Asked: " + step.instruction, "quiet") : null,
      step.thought ? freeText(step.thought, "thought") : null,
      step.calls.map(call),
      warnings(step),
      images,
      step.more_images ? freeText(count(step.more_images, "more image") + " in the run directory", "quiet") : null,
      step.result ? make("details", null, make("summary", null, "What it was shown"), raw(step.result, "what it was shown, " + name)) : null,
      step.reply ? make("details", null, make("summary", null, "Reply as written"), raw(step.reply, "reply, " + name)) : null,
      pairs(step.other),
    );
  }

  function part([name, calls, input, output, cost, seconds]) {
    const tokens = input + output;
    return [name, [count(calls, "paid call"), tokens ? input.toLocaleString("en") + " tokens in, " + output.toLocaleString("en") + " out" : "", money(cost, tokens), duration(seconds)].filter(Boolean).join(", ")];
  }

  function end(record) {
    const facts = [["ending", words(record.ending || record.status)], ["reason", record.reason], ["fallback", record.fallback], ["prompt for the image model", record.prompt], ["time", record.seconds ? duration(record.seconds) : ""], ["attempts", record.attempts > 1 ? String(record.attempts) : ""]];
    const notes = record.chosen.map((entry) => make("div", { class: "chosen" }, picture(entry, ""), pairs([["note", entry.note], ["image", entry.url], ["page", entry.page]].filter((each) => each[1]))));
    return make(
      "li",
      { class: "end" },
      make("h5", null, record.ending === "answer" ? "Answer" : "End"),
      pairs(facts.filter((pair) => pair[1])),
      notes.length ? [make("p", { class: "quiet" }, count(notes.length, "chosen reference")), ...notes] : freeText("No reference image was chosen.", "quiet"),
      record.parts.length ? pairs(record.parts.map(part)) : null,
    );
  }

  // The rounds of a trajectory below a heading; also for the pages of trainings.
  page.timeline = (heading, record) => {
    const longest = Math.max(...record.steps.map((step) => step.policy.seconds + step.tools.seconds), 0);
    const more = record.more_steps ? freeText(count(record.more_steps, "more step") + " in the run directory", "quiet") : null;
    const legend = make("p", { class: "spent", "aria-hidden": "true" }, make("i", { class: "policy" }), " policy ", make("i", { class: "tools" }), " tools");
    return make("section", null, heading, record.steps.length ? legend : freeText("No step is recorded."), make("ol", { class: "timeline", role: "list" }, record.steps.map((step) => item(step, longest)), end(record)), more);
  };

  const name = (system) => make("h4", null, page.key(system), " ", make("bdi", null, system.label));

  function line(agent) {
    return [words(agent.ending), count(agent.steps, "step"), count(agent.calls, "call"), count(agent.chosen, "reference"), agent.blocked ? agent.blocked + " blocked" : "", agent.fallback ? "fallback" : ""].filter(Boolean).join(", ");
  }

  // The line that opens the trajectories of a sample; null if no shown system has one. They are in files of their own.
  page.trajectory = (sample, position, shown) => {
    const agents = shown.filter((index) => sample.cells[index] && sample.cells[index].agent);
    if (!agents.length) return null;
    const body = make("div", { class: "trajectories" });
    const each = agents.map((index) => (agents.length > 1 ? page.data.systems[index].label + ": " : "") + line(sample.cells[index].agent));
    const fold = make("details", { class: "trajectory" }, make("summary", null, "Trajectory", make("span", { class: "gist free-text" }, each.join("; "))), body);
    fold.addEventListener("toggle", () => {
      if (!fold.open || body.childElementCount) return;
      const size = page.data.trajectories;
      page.load("trajectories-" + Math.floor(position / size)).then(
        (entries) => body.replaceChildren(...agents.map((index) => page.timeline(name(page.data.systems[index]), entries[position % size][index]))),
        (error) => body.replaceChildren(make("p", { class: "note" }, error.message)),
      );
    });
    return fold;
  };
})();
