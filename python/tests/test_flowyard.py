"""The module on the rings of a live yard named edge: ring 0 with packets until the yard ends, ring 1 with none.

Run by crates/capi/tests/python.rs, which serves the yard; packets have annotations of 64 bytes.
"""

import gc
import select
import struct
import unittest

import flowyard


class OnARing(unittest.TestCase):
    def setUp(self):
        self.ring = flowyard.attach("edge/0", program="test", patience=10.0)

    def tearDown(self):
        self.ring.close()
        gc.collect()

    def batch(self, count=8):
        while True:
            self.assertTrue(self.ring.wait(30.0))
            batch = self.ring.take(count)
            if len(batch) == count:
                return batch

    def test_what_the_yard_says(self):
        ring = self.ring
        self.assertEqual((ring.yard, ring.group, ring.ring, ring.rings), ("edge", "", 0, 2))
        self.assertEqual((ring.ports, ring.annotation_bytes, ring.writable, ring.end), (["gen:mix"], 64, False, None))
        self.assertIn("edge/0", repr(ring))

    def test_packets_and_tags(self):
        seen = 0
        for batch in self.ring:
            for packet in batch:
                tag = packet.tag
                self.assertEqual((tag.hash, tag.len, tag.link), (packet.hash, packet.len, 1))
                self.assertEqual(len(packet), packet.len)
                self.assertEqual(bytes(packet), b"".join(packet.segments))
                self.assertEqual(packet.data.nbytes, packet.len)
                self.assertEqual(packet.annotation.nbytes, 64)
                self.assertTrue(packet.data.readonly and packet.annotation.readonly)
                if tag.inner_l3 != flowyard.NO_OFFSET:
                    self.assertIn(packet.data[tag.inner_l3] >> 4, (4, 6))
                seen += 1
            if seen > 2000:
                break
        self.assertEqual(batch[-1].hash, batch[len(batch) - 1].hash)
        with self.assertRaises(IndexError):
            batch[len(batch)]

    def test_views_raise_once_they_are_released(self):
        batch = self.batch()
        packet = batch[3]
        view = packet.data
        self.assertEqual(bytes(view), bytes(packet))
        batch.release()
        for use in (lambda: view[0], lambda: bytes(view), lambda: packet.data, lambda: packet.hash,
                    lambda: packet.tag, lambda: bytes(packet), lambda: batch.slots):
            with self.assertRaises(ValueError):
                use()
        batch.release()
        self.assertEqual(len(batch), 8)

    def test_what_is_still_looked_at_stays(self):
        batch = self.batch()
        part = batch[0].data[2:6]
        kept = bytes(part)
        with self.assertRaises(BufferError):
            batch.release()
        self.assertEqual(bytes(part), kept)
        self.assertEqual(batch[1].tag.hash, batch[1].hash)
        del part
        batch.release()
        with self.assertRaises(BufferError):
            with self.batch() as batch:
                part = memoryview(batch[0].data)

    def test_a_view_outlives_its_batch_its_ring_and_its_name(self):
        batch = self.batch()
        view, whole = batch[5].data, bytes(batch[5])
        del batch
        self.ring.close()
        gc.collect()
        self.assertEqual(bytes(view), whole)
        with self.assertRaises(ValueError):
            self.ring.take()
        again = None
        with self.assertRaises(flowyard.AttachError):  # it has the ring as long as it is looked at
            again = flowyard.attach("edge/0")
        self.assertIsNone(again)
        del view
        gc.collect()
        flowyard.attach("edge/0", patience=10.0).close()

    def test_many_batches_at_once(self):
        batches = [self.batch(4) for _ in range(10)]
        copies = [[bytes(packet) for packet in batch] for batch in batches]
        for batch, copy in zip(reversed(batches), reversed(copies)):
            self.assertEqual([bytes(packet) for packet in batch], copy)
            batch.release()

    def test_slots_are_records(self):
        batch = self.batch(16)
        slots = batch.slots
        self.assertEqual(len(slots), 16 * 32)
        records = list(struct.iter_unpack("=IIQIIHHHH", slots))
        self.assertEqual([(r[0], r[1], r[2]) for r in records], [(p.hash, p.len, p.time_ns) for p in batch])
        try:
            import numpy
        except ImportError:
            print("SKIPPED: numpy is not there")
            return
        array = numpy.frombuffer(slots, dtype=flowyard.SLOT_DTYPE)
        self.assertEqual(array.dtype.itemsize, 32)
        self.assertEqual(array["hash"].tolist(), [packet.hash for packet in batch])
        self.assertEqual(array["len"].sum(), sum(packet.len for packet in batch))
        array = numpy.frombuffer(batch[0].data, dtype="u1")
        self.assertEqual(array.tobytes(), bytes(batch[0]))
        with self.assertRaises(BufferError):
            batch.release()
        del array
        batch.release()

    def test_waiting_in_a_loop_of_ones_own(self):
        seen = 0
        while seen < 200:
            seen += len(self.ring.take(3))
            if self.ring.prepare_to_wait():
                self.assertEqual(select.select([self.ring], [], [], 30.0)[0], [self.ring])


class Elsewhere(unittest.TestCase):
    def test_an_idle_ring(self):
        with flowyard.attach("edge/1") as ring:
            self.assertFalse(ring.wait(0.01))
            self.assertEqual(len(ring.take()), 0)
            self.assertTrue(ring.prepare_to_wait())
            self.assertEqual(select.select([ring], [], [], 0.01)[0], [])

    def test_leave_to_write(self):
        with flowyard.attach("edge/1", write=True) as ring:
            self.assertTrue(ring.writable)

    def test_refusals(self):
        for name, why in (("edge", "NAME/RING"), ("edge/9", "there is none"), ("nowhere/0", "cannot reach")):
            with self.assertRaisesRegex(flowyard.AttachError, why):
                flowyard.attach(name)
        for wrong in (-1.0, float("nan")):
            with self.assertRaises(ValueError):
                flowyard.attach("edge/1", patience=wrong)


class UntilTheEnd(unittest.TestCase):
    """The last one."""

    def test_it(self):
        seen = 0
        with flowyard.attach("edge/0", patience=10.0) as ring:
            print("until the end", flush=True)
            for batch in ring:
                seen += len(batch)
                del batch
            self.assertEqual(ring.end, "in order")
        self.assertGreater(seen, 0)


if __name__ == "__main__":
    unittest.main(verbosity=0)
