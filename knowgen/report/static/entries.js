"use strict";
// The entries of the gallery with their names: data/index.js has them as lists, because all of them are read at once.
(() => {
  const page = window.KNOWGEN;
  const packed = window.KNOWGEN_DATA.index;
  const { texts } = packed;

  // No image is 0, one value is the reason why it cannot be shown.
  function image(entry) {
    if (!entry) return null;
    if (entry.length === 1) return { fault: texts[entry[0]] };
    return { small: entry[0] + texts[entry[1]], large: entry[0] + texts[entry[2]], width: entry[3], height: entry[4] };
  }

  // A number is the view that has the same reading.
  function readings(entries) {
    const whole = [];
    for (const each of entries) {
      if (typeof each === "number") whole.push(whole[each]);
      else whole.push(each && [each[0], each[1], each[2], each.length > 3 ? texts[each[3]] : ""]);
    }
    return whole;
  }

  const cell = (entry) => (entry ? { image: image(entry[0]), readings: readings(entry[1]), agent: entry[2] || null } : null);

  function sample(entry) {
    const [id, repeat, prompt, category, group, difficulty, required, truth, cells] = entry;
    return { id, repeat, prompt, category: texts[category], group: texts[group], difficulty: texts[difficulty], required, truth: image(truth), cells: cells.map(cell) };
  }

  page.data = { ...packed, samples: packed.entries.map(sample) };
  // the packed form is not needed again, and is as large as the other
  delete window.KNOWGEN_DATA.index;
})();
