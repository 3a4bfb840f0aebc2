"""openai-python against a server: `python -m unittest openai_client.Text` with OATMILL_URL set, or openai_client.Embeddings."""

import asyncio
import io
import os
import unittest

import openai
import pydantic

BASE_URL = os.environ["OATMILL_URL"] + "/v1"
MODEL = "fake"
PROMPT = "Once upon a time, there was"
MESSAGES = [{"role": "user", "content": PROMPT}]
GREEDY = {"model": MODEL, "temperature": 0}


class Animal(pydantic.BaseModel):
    tame: bool
    big: bool


def client(**options):
    return openai.OpenAI(base_url=BASE_URL, api_key="none", **{"max_retries": 0, **options})


class Text(unittest.TestCase):
    def setUp(self):
        self.client = client()
        self.addCleanup(self.client.close)

    def test_models(self):
        self.assertEqual([model.id for model in self.client.models.list()], [MODEL])
        self.assertEqual(self.client.models.retrieve(MODEL).object, "model")

    def test_completions(self):
        request = {**GREEDY, "prompt": PROMPT, "max_tokens": 12}
        whole = self.client.completions.create(**request, logprobs=2, echo=True)
        self.assertTrue(whole.choices[0].text.startswith(PROMPT))
        self.assertEqual(len(whole.choices[0].logprobs.tokens), whole.usage.total_tokens)
        stream = self.client.completions.create(**request, stream=True)
        self.assertEqual(PROMPT + "".join(chunk.choices[0].text for chunk in stream), whole.choices[0].text)

    def test_chat(self):
        request = {**GREEDY, "messages": MESSAGES, "max_completion_tokens": 12}
        whole = self.client.chat.completions.create(**request, n=2, logprobs=True, top_logprobs=3)
        self.assertEqual([choice.index for choice in whole.choices], [0, 1])
        self.assertEqual(len(whole.choices[0].logprobs.content), 12)
        self.assertEqual(whole.choices[0].finish_reason, "length")
        ending = {**GREEDY, "messages": MESSAGES, "max_completion_tokens": 200, "stop": ["."]}
        whole = self.client.chat.completions.create(**ending)
        with self.client.chat.completions.stream(**ending, stream_options={"include_usage": True}) as stream:
            for _ in stream:
                pass
            final = stream.get_final_completion()
        self.assertEqual(final.choices[0].message.content, whole.choices[0].message.content)
        self.assertEqual(final.usage.completion_tokens, whole.usage.completion_tokens)

    def test_chat_parses_a_model_of_pydantic(self):
        request = {"model": MODEL, "seed": 4, "messages": MESSAGES, "max_completion_tokens": 300}
        whole = self.client.chat.completions.parse(**request, response_format=Animal)
        self.assertIsInstance(whole.choices[0].message.parsed, Animal)

    def test_responses(self):
        request = {**GREEDY, "input": PROMPT, "max_output_tokens": 12}
        whole = self.client.responses.create(**request, metadata={"a": "b"})
        self.assertEqual((whole.status, whole.incomplete_details.reason), ("incomplete", "max_output_tokens"))
        self.assertEqual((whole.usage.output_tokens, whole.metadata), (12, {"a": "b"}))
        ending = {**GREEDY, "input": PROMPT, "extra_body": {"stop": ["."]}}
        whole = self.client.responses.create(**ending)
        with self.client.responses.stream(**ending) as stream:
            types = [event.type for event in stream]
            final = stream.get_final_response()
        self.assertEqual((types[0], types[-1]), ("response.created", "response.completed"))
        self.assertEqual(final.output_text, whole.output_text)
        parsed = self.client.responses.parse(
            model=MODEL, input=PROMPT, max_output_tokens=300, text_format=Animal, extra_body={"seed": 4}
        )
        self.assertIsInstance(parsed.output_parsed, Animal)

    def test_async_requests_at_once_and_one_that_is_cancelled(self):
        async def run():
            async with openai.AsyncOpenAI(base_url=BASE_URL, api_key="none", max_retries=0) as client:
                request = {**GREEDY, "prompt": PROMPT, "max_tokens": 12}
                answers = await asyncio.gather(*(client.completions.create(**request) for _ in range(4)))
                self.assertEqual(len({answer.choices[0].text for answer in answers}), 1)
                long = asyncio.create_task(client.completions.create(**{**request, "max_tokens": 400}))
                await asyncio.sleep(0.05)
                long.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await long

        asyncio.run(run())

    def test_files(self):
        content = b"two lines\nof text\n"
        file = self.client.files.create(file=("notes.txt", content), purpose="user_data")
        self.assertEqual((file.filename, file.bytes, file.status), ("notes.txt", len(content), "processed"))
        self.assertIn(file.id, [other.id for other in self.client.files.list(purpose="user_data")])
        self.assertEqual(self.client.files.retrieve(file.id).id, file.id)
        self.assertEqual(self.client.files.content(file.id).read(), content)
        self.assertTrue(self.client.files.delete(file.id).deleted)
        with self.assertRaises(openai.NotFoundError):
            self.client.files.retrieve(file.id)

    def test_uploads(self):
        content = bytes(range(256)) * 8
        file = self.client.uploads.upload_file_chunked(
            file=content, filename="parts.txt", bytes=len(content), mime_type="text/plain",
            purpose="user_data", part_size=700,
        ).file
        self.assertEqual(self.client.files.content(file.id).read(), content)
        upload = self.client.uploads.create(filename="a.txt", bytes=4, mime_type="text/plain", purpose="user_data")
        self.client.uploads.parts.create(upload.id, data=io.BytesIO(b"abcd"))
        self.assertEqual(self.client.uploads.cancel(upload.id).status, "cancelled")

    def test_errors(self):
        complete = self.client.completions.create
        with self.assertRaises(openai.NotFoundError) as caught:
            complete(model="nobody", prompt="x")
        self.assertEqual((caught.exception.code, caught.exception.param), ("model_not_found", "model"))
        with self.assertRaises(openai.BadRequestError) as caught:
            complete(model=MODEL, prompt="x", n=0)
        self.assertEqual((caught.exception.type, caught.exception.param), ("invalid_request_error", "n"))
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.embeddings.create(model=MODEL, input="x")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.responses.create(model=MODEL, input="x", store=True)
        self.assertEqual(caught.exception.param, "store")
        with client(timeout=0.001) as hurried, self.assertRaises(openai.APITimeoutError):
            hurried.completions.create(model=MODEL, prompt="x", max_tokens=400)


class Embeddings(unittest.TestCase):
    def test_numbers_are_the_same_whatever_the_encoding(self):
        with client() as openai_client:
            inputs = ["a cat", "a dog"]
            packed = openai_client.embeddings.create(model=MODEL, input=inputs)
            plain = openai_client.embeddings.create(model=MODEL, input=inputs, encoding_format="float")
        for a, b in zip(packed.data, plain.data):
            self.assertEqual(a.index, b.index)
            for x, y in zip(a.embedding, b.embedding):
                self.assertAlmostEqual(x, y, 6)


if __name__ == "__main__":
    unittest.main()
