"use strict";
// Details of a sample: ground truth, inputs and outputs of each system, every score with its raw replies.
(() => {
  const page = window.KNOWGEN;
  const { make, number } = page;

  const words = (name) => name.replaceAll("_", " ");
  const freeText = (text) => make("p", { dir: "auto", class: "free-text" }, text);
  // A call without price and tokens is not billed.
  const money = ({ cost, input, output }) => {
    if (cost === null) return input + output ? "price not known" : "";
    return cost === 0 ? "$0" : "$" + cost.toFixed(cost < 0.1 ? 4 : 2);
  };

  function block(title, ...children) {
    const shown = children.flat().filter((child) => child !== null && child !== "");
    return shown.length ? [title ? make("h5", null, title) : null, ...shown].filter(Boolean) : [];
  }

  function pairs(entries) {
    if (!entries || !entries.length) return null;
    return make("dl", { class: "pairs" }, entries.flatMap(([name, text]) => [make("dt", { class: "free-text" }, words(name)), make("dd", { dir: "auto", class: "free-text" }, text)]));
  }

  function truth(record) {
    const required = record.required_text.length ? record.required_text.map(freeText) : [];
    const note = record.text_required === false ? freeText("The prompt requires no text.") : null;
    return make(
      "section",
      null,
      make("h4", null, "Ground truth"),
      block("Required text", required, note),
      block("Subjects", record.subjects.map(pairs)),
      block("Evidence", record.evidence.map(freeText)),
    );
  }

  function parsedScore(one, alone) {
    const values = Object.entries(one.values).map(([name, value]) => [name, number(value)]);
    const na = one.na.map((name) => [name, "not applicable"]);
    const title = alone ? "" : one.name === "strict" ? "Strict score" : "Official score";
    return block(title, one.status === "ok" ? null : freeText(words(one.status) + (one.reason ? ": " + one.reason : "")), one.rationale ? freeText(one.rationale) : null, pairs([...values, ...na]));
  }

  function attempt(one, index) {
    const facts = [["model", one.model], ["finish reason", one.finish], ["time", one.seconds.toFixed(2) + " s"], ["tokens", one.usage.input + " in, " + one.usage.output + " out"], ["cost", money(one.usage)], ["error", one.error]];
    return [make("h5", null, "Reply " + (index + 1)), pairs(facts.filter((pair) => pair[1])), make("pre", { dir: "auto", tabindex: "0", role: "region", "aria-label": "reply " + (index + 1) }, one.reply || "no reply")];
  }

  function score(score) {
    const judge = score.returned || score.asked;
    const head = score.scorer + (score.judge_repeat ? ", score " + (score.judge_repeat + 1) : "");
    const facts = [["judge", judge && score.asked && judge !== score.asked ? judge + " (requested " + score.asked + ")" : judge], ["parser", score.parser], ["time", score.seconds.toFixed(2) + " s"], ["cost", money(score.usage)]];
    const raw = score.attempts.length
      ? make("details", null, make("summary", null, score.attempts.length === 1 ? "Raw reply" : score.attempts.length + " raw replies"), score.attempts.flatMap(attempt))
      : null;
    const alone = score.readings.length === 1;
    const parts = [...score.readings.flatMap((one) => parsedScore(one, alone)), ...block("Recognised text", score.recognised.map(freeText)), ...block("Measurements", pairs(score.found)), ...block("Score", pairs(facts.filter((pair) => pair[1]))), raw].filter(Boolean);
    // The shown scorer is open, the others are collapsed.
    if (score.scorer === page.data.views[page.view].scorer) return [make("h5", { class: "free-text" }, head), ...parts];
    return [make("details", null, make("summary", { class: "free-text" }, head), ...parts)];
  }

  function generation(system, cell) {
    const title = make("h4", null, page.key(system), " ", make("bdi", null, system.label));
    if (!cell || !cell.status) return make("section", null, title, freeText("No generation."), (cell && cell.scores ? cell.scores : []).flatMap(score));
    const facts = [["seed", String(cell.seed)], ["time", cell.seconds.toFixed(2) + " s"], ["cost", money(cell.usage)], ["attempts", cell.attempts > 1 ? String(cell.attempts) : ""], ["steps", cell.steps ? String(cell.steps) : ""]];
    return make(
      "section",
      null,
      title,
      cell.reason ? block(words(cell.status), freeText(cell.reason)) : null,
      cell.image_notes.length ? block("Changes to the returned image", cell.image_notes.map(freeText)) : null,
      cell.used_prompt ? block("Prompt used for generation", freeText(cell.used_prompt)) : null,
      (cell.scores || []).flatMap(score),
      block("Generation", pairs([...facts.filter((pair) => pair[1]), ...cell.settings])),
      block("Reference images", cell.references.map(pairs)),
      cell.evidence.length ? make("details", null, make("summary", null, "Gathered evidence (" + cell.evidence.length + ")"), cell.evidence.map(pairs)) : null,
    );
  }

  page.depth = (entry, shown) => [truth(entry.truth), ...shown.map((index) => generation(page.data.systems[index], entry.cells[index]))];
})();
