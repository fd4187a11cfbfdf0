"use strict";
// Episodes of two steps side by side, with the same prompt where both have it. What is chosen is in the address:
// #compare?steps=20,80&key=… and runs, other (the prompt of the right side, if it is another) and episodes.
(() => {
  const page = window.KNOWGEN;
  const { make, number } = page;
  const { trainings } = window.KNOWGEN_DATA.index;
  const section = document.getElementById("compare");
  const usable = trainings.map((_, index) => index).filter((index) => trainings[index].steps.length);
  let turn = 0;

  const words = (name) => name.replaceAll("_", " ");
  const stepsOf = (run) => trainings[run].steps.map((entry) => entry[0]);
  const keysOf = (run, step) => trainings[run].steps.find((entry) => entry[0] === step)[1].map((place) => trainings[run].keys[place]);
  const nearest = (all, step) => all.reduce((best, each) => (Math.abs(each - step) < Math.abs(best - step) ? each : best), all[0]);

  function partner(run, step, other) {
    const keys = new Set(keysOf(run, step));
    const others = stepsOf(other).filter((each) => run !== other || each !== step);
    if (!others.length) return step;
    const sharing = others.filter((each) => keysOf(other, each).some((key) => keys.has(key)));
    return (sharing.length ? sharing : others).reduce((best, each) => (Math.abs(each - step) > Math.abs(best - step) ? each : best));
  }

  // What the address asks for, as far as it is there.
  function choose(values) {
    const runs = (values.runs || "").split(",").filter(Boolean).map(Number).filter((run) => usable.includes(run));
    const left = runs.length ? runs[0] : usable[0];
    const right = runs.length > 1 ? runs[1] : runs.length ? left : usable[usable.length > 1 ? 1 : 0];
    const asked = (values.steps || "").split(",").filter(Boolean).map(Number).filter(Number.isFinite);
    const all = [stepsOf(left), stepsOf(right)];
    let wanted = asked;
    let steps = asked.length > 1 ? [nearest(all[0], asked[0]), nearest(all[1], asked[1])] : null;
    if (!steps) {
      // Of one step, or of none: the other side is the step farthest from it that has one of its prompts.
      const here = asked.length ? nearest(all[1], asked[0]) : all[1][all[1].length - 1];
      const there = partner(right, here, left);
      const swapped = left === right && there > here;
      steps = swapped ? [here, there] : [there, here];
      if (asked.length) wanted = swapped ? [asked[0]] : [there, asked[0]];
    }
    const sides = [left, right].map((run, index) => ({ run, step: steps[index], asked: wanted.length > index ? wanted[index] : null }));
    const keys = sides.map((side) => keysOf(side.run, side.step));
    const both = keys[0].filter((key) => keys[1].includes(key));
    const mine = keys[0].includes(values.key) ? values.key : both.length && !keys[1].includes(values.key) ? both[0] : keys[0][0];
    const theirs = [values.other, values.key, mine].find((key) => key && keys[1].includes(key)) || keys[1][0];
    const episodes = (values.episodes || "").split(",").map((each) => Number(each) || 0);
    sides[0].key = mine;
    sides[1].key = theirs;
    // A link to an episode of one step means the side on which that step is.
    const onRight = asked.length === 1 && steps[0] !== nearest(all[0], asked[0]);
    const place = onRight ? [0, episodes[0]] : episodes;
    sides.forEach((side, index) => {
      side.keys = keys[index];
      side.episode = place[index] || 0;
    });
    return { sides, both };
  }

  function change(sides) {
    const [left, right] = sides;
    page.address.change("compare", {
      runs: left.run === 0 && right.run === 0 ? "" : left.run + "," + right.run,
      steps: left.step + "," + right.step,
      key: left.key,
      other: right.key === left.key ? "" : right.key,
      episodes: left.episode || right.episode ? left.episode + "," + right.episode : "",
    });
  }

  function select(label, options, chosen, act) {
    const box = make("select", { "aria-label": label });
    for (const [value, text, group] of options) {
      let parent = box;
      if (group) {
        parent = [...box.querySelectorAll("optgroup")].find((each) => each.label === group) || null;
        if (!parent) box.append((parent = make("optgroup", { label: group })));
      }
      parent.append(make("option", { value, selected: value === String(chosen) }, text));
    }
    box.addEventListener("change", () => act(box.value));
    return make("label", { class: "field" }, make("span", null, label), box);
  }

  function controls({ sides, both }) {
    const form = document.getElementById("pick");
    const fields = [];
    sides.forEach((side, index) => {
      const name = index ? "Right" : "Left";
      const set = (changes) => change(sides.map((each, place) => (place === index ? { ...each, ...changes } : each)));
      if (usable.length > 1) fields.push(select(name + " training", usable.map((run) => [String(run), trainings[run].label]), side.run, (value) => set({ run: Number(value), step: nearest(stepsOf(Number(value)), side.step), episode: 0 })));
      fields.push(select(name + " step", stepsOf(side.run).map((step) => [String(step), String(step)]), side.step, (value) => set({ step: Number(value), episode: 0 })));
    });
    const prompts = [...both.map((key) => [key, key, "in both steps"]), ...sides[0].keys.filter((key) => !both.includes(key)).map((key) => [key, key, "in the left step"])];
    const follow = (key) => change([{ ...sides[0], key, episode: 0 }, { ...sides[1], key: sides[1].keys.includes(key) ? key : sides[1].key, episode: 0 }]);
    fields.push(select(both.length ? "Prompt" : "Left prompt", prompts, sides[0].key, follow));
    if (sides[0].key !== sides[1].key) fields.push(select("Right prompt", sides[1].keys.map((key) => [key, key]), sides[1].key, (key) => change([sides[0], { ...sides[1], key, episode: 0 }])));
    const focused = form.contains(document.activeElement) ? [...form.querySelectorAll("select")].indexOf(document.activeElement) : -1;
    form.replaceChildren(...fields);
    if (focused >= 0) (form.querySelectorAll("select")[focused] || form).focus();
  }

  function status({ sides, both }) {
    const moved = sides.filter((side) => side.asked !== null && side.asked !== side.step).map((side) => "step " + side.asked + " is not here, step " + side.step + " is the nearest");
    const shared = sides[0].key === sides[1].key ? "the same prompt in both" : both.length ? "different prompts" : "no prompt is in both steps";
    document.getElementById("match-count").textContent = ["Step " + sides[0].step + " and step " + sides[1].step, shared, ...moved].join(" · ");
  }

  const reward = (episode) => (episode.masked ? "masked" : number(episode.reward));
  const signed = (value) => (value === null || value === undefined ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3));

  function group(members, side, act) {
    const heads = ["Episode", "Reward", "Image", "Text", "Advantage", "Calls", "Ending"];
    const rows = members.map((episode, place) => {
      const chosen = place === side.place;
      const button = make("button", { type: "button", class: "plain text", "aria-pressed": String(chosen), "aria-label": "episode " + episode.number + ", reward " + reward(episode) }, String(episode.number));
      button.addEventListener("click", () => act(episode.number));
      const cells = [reward(episode), number(episode.parts[0]), number(episode.parts[1]), signed(episode.advantage), String(episode.calls)];
      return make(
        "tr",
        { role: "row", class: chosen ? "chosen-row" : null },
        make("th", { role: "rowheader", scope: "row" }, button),
        cells.map((text, index) => make("td", { role: "cell", class: "num", "data-label": heads[index + 1] }, text)),
        make("td", { role: "cell", class: "free-text", "data-label": "Ending" }, words(episode.ending)),
      );
    });
    const head = make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, heads.map((text, index) => make("th", { role: "columnheader", scope: "col", class: index && index < 6 ? "num" : null }, text))));
    return make("div", { class: "wide", role: "region", "aria-label": "Episodes of the prompt at step " + side.step, tabindex: "0" }, make("table", { role: "table", class: "group" }, head, make("tbody", { role: "rowgroup" }, rows)));
  }

  function picture(episode, side) {
    if (!episode.image) return episode.no_image ? make("div", { class: "state" }, make("b", null, "no image"), make("span", { dir: "auto" }, episode.no_image)) : null;
    if (episode.image.fault) return make("div", { class: "state" }, make("b", null, "image not shown"), make("span", { dir: "auto" }, episode.image.fault));
    const frame = page.frame(episode.image, "generated image of episode " + episode.number + " at step " + side.step);
    frame.classList.add("generated");
    return frame;
  }

  function facts(episode) {
    const tokens = episode.tokens[0] + episode.tokens[1] ? episode.tokens[0].toLocaleString("en") + " sampled, " + episode.tokens[1].toLocaleString("en") + " context" : "";
    const time = episode.seconds.map(([name, value]) => name + " " + value.toFixed(2) + " s").join(", ");
    const cost = episode.cost === null ? "not known" : episode.cost ? "$" + episode.cost.toFixed(4) : "";
    const gap = episode.gap === null ? "" : page.figure(episode.gap) + " nats";
    return [["masked because", episode.masked], ["rule", episode.reason], ["tokens", tokens], ["engine against trainer", gap], ["time", time], ["cost", cost]].filter((pair) => pair[1]);
  }

  function pairs(entries) {
    if (!entries.length) return null;
    return make("dl", { class: "pairs" }, entries.flatMap(([name, text]) => [make("dt", { class: "free-text" }, name), make("dd", { dir: "auto", class: "free-text" }, text)]));
  }

  function score(one) {
    const values = one.values.map(([name, value]) => name + " " + number(value)).join(", ");
    return [one.scorer, [values || words(one.status), one.reason, one.rationale].filter(Boolean).join(" · ")];
  }

  function column(side, members, act) {
    const label = trainings.length > 1 ? [page.key(trainings[side.run]), " ", make("bdi", null, trainings[side.run].label), " · "] : [];
    const heading = make("h3", null, ...label, "Step " + side.step);
    if (!members) return make("section", { class: "side" }, heading, make("p", { class: "note" }, "The step has no episode of this prompt."));
    const found = members.episodes.findIndex((each) => each.number === side.episode);
    side.place = Math.max(0, found);
    const episode = members.episodes[side.place];
    const title = make("h4", null, "Episode " + episode.number + " · " + (episode.masked ? "masked" : "reward " + reward(episode)) + (episode.ending ? " · " + words(episode.ending) : ""));
    const body = episode.trajectory ? page.timeline(title, episode.trajectory) : make("section", null, title, make("p", { class: "note" }, "No trajectory is stored: a service failed before its end."));
    title.after(...[picture(episode, side), pairs([...facts(episode), ...episode.scores.map(score)])].filter(Boolean));
    return make(
      "section",
      { class: "side", "aria-label": "Step " + side.step },
      heading,
      make("p", { class: "free-text prompt", dir: "auto" }, members.prompt),
      group(members.episodes, side, act),
      make("div", { class: "trajectories" }, body),
    );
  }

  function show(values) {
    const chosen = choose(values);
    const mine = ++turn;
    controls(chosen);
    status(chosen);
    const box = document.getElementById("sides");
    Promise.all(chosen.sides.map((side) => page.load("episodes-" + side.run + "-" + side.step))).then(
      (loaded) => {
        if (mine !== turn) return; // another choice was made meanwhile
        const columns = chosen.sides.map((side, index) => {
          const members = loaded[index].find((each) => each.key === side.key);
          return column(side, members, (episode) => change(chosen.sides.map((each, place) => (place === index ? { ...each, episode } : each))));
        });
        box.replaceChildren(...columns);
        box.dataset.shown = chosen.sides.map((side) => side.step).join(",");
      },
      (error) => box.replaceChildren(make("p", { class: "note" }, error.message)),
    );
  }

  let before = null;
  page.address.listen((state, go) => {
    const asked = JSON.stringify(state.values);
    if (section && usable.length && asked !== before) show(state.values);
    before = asked;
    if (go && state.section) page.reveal(state.section, document);
  });
  page.address.start();
})();
