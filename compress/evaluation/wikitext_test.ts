import assert from "node:assert/strict";
import { oracleTest, shared } from "../../models/testing/shared.ts";
import { detokenize, pageBytes, pageWords, wikiPages } from "./wikitext.ts";

Deno.test("wikiPages() begins a page at every title, not at headings of sections", () => {
  const raw =
    " \n = One = \n \n Text . \n = = Part = = \n More . \n = = = Small = = = \r\n = Two = \n End . \n";
  assert.deepEqual(wikiPages(raw), [
    " = One = \n \n Text . \n = = Part = = \n More . \n = = = Small = = = ",
    " = Two = \n End . \n",
  ]);
  assert.deepEqual(wikiPages(""), []);
});

Deno.test("detokenize() undoes what WikiText puts around marks", () => {
  const cases: [raw: string, printed: string][] = [
    ["a well @-@ known 1 @,@ 234 @.@ 5 km", "a well-known 1,234.5 km"],
    ["one , two ; three : four . Five ! Six ? No", "one, two; three: four. Five! Six? No"],
    ["the dogs ' tails", "the dogs' tails"],
    ["the dog 's", "the dog's"],
    ["( in 1988 ) [ note ] { x } \" said \" ' no '", "(in 1988) [note] {x} \"said\" 'no'"],
    [
      " = = = = Deep = = = = \n = = = Small = = = \n = = Part = = ",
      " ==== Deep ====\n=== Small ===\n== Part == ",
    ],
    ["20 ° C", "20°C"],
    ["N and N sheep", "N and 1 sheep"],
    ["a ( first\n line ) b", "a (first\nline) b"],
  ];
  for (const [raw, printed] of cases) assert.equal(detokenize(raw), printed);
});

Deno.test("pageWords() counts the parts between white space, the empty ones at the ends too", () => {
  assert.equal(pageWords(" = One = \n Text . \n"), 7);
  assert.equal(pageWords("a\u0085b\ufeffc"), 2, "white space as Python knows it");
  assert.equal(pageBytes("é°"), 4);
});

oracleTest("the WikiText-2 test file has 62 pages of 241,211 words", "data/text", async () => {
  const pages = wikiPages(await Deno.readTextFile(shared("data/text/wikitext2_wiki.test.raw")));
  assert.equal(pages.length, 62);
  assert.ok(pages[0].startsWith(" = Robert Boulter = \n"));
  // Each page has an empty part before its first word and one after its last.
  assert.equal(pages.reduce((n, page) => n + pageWords(page), 0), 241_211 + 2 * 62);
});
