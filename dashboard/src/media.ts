// Images and audio for requests: scaled down, converted to a format that agents can decode, encoded as base64.
import { t } from "./texts";

const PICTURE_BYTES = 1_500_000;
const PICTURE_PIXELS = 1_600;
/** Largest file of a request, bytes: brokers accept 32 MB, and base64 adds a third. */
const LARGEST = 16_000_000;
const SOUND_HZ = 16_000;
/** Audio formats that agents can decode. */
const SOUNDS = /\.(wav|flac|ogg|oga|mp3)$/i;

/** The bytes of an image: unchanged if small, otherwise scaled down as JPEG. */
export async function picture(file: File): Promise<Uint8Array> {
  if (file.size <= PICTURE_BYTES) return bytes(file);
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return bytes(file); // the agent answers with the decoding error
  const scale = Math.min(1, PICTURE_PIXELS / Math.max(bitmap.width, bitmap.height));
  return bytes(await still(bitmap, Math.round(bitmap.width * scale), Math.round(bitmap.height * scale)));
}

/** The current frame of a video or bitmap, as JPEG. */
export function still(source: CanvasImageSource, width: number, height: number): Promise<Blob> {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d")!.drawImage(source, 0, 0, width, height);
  return new Promise((done, failed) =>
    canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("no picture could be made"))), "image/jpeg", 0.9),
  );
}

/** The bytes of an audio file: unchanged if agents can decode it, otherwise decoded by the browser to WAV. */
export async function sound(file: File): Promise<Uint8Array> {
  if (SOUNDS.test(file.name)) return bytes(file);
  const context = new OfflineAudioContext(1, 1, SOUND_HZ); // decodeAudioData resamples to the context's rate
  const decoded = await context.decodeAudioData(await file.arrayBuffer()).catch(() => {
    throw new Error(t.ask.notPlayed(file.name));
  });
  return wav(mono(decoded));
}

function mono(buffer: AudioBuffer): Float32Array {
  const mixed = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++)
    buffer.getChannelData(channel).forEach((value, index) => (mixed[index]! += value / buffer.numberOfChannels));
  return mixed;
}

/** A WAV file: 16-bit PCM, one channel, 44 bytes of header. */
function wav(samples: Float32Array): Uint8Array {
  const view = new DataView(new ArrayBuffer(44 + samples.length * 2));
  const word = (at: number, text: string) =>
    [...text].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + samples.length * 2, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, SOUND_HZ, true);
  view.setUint32(28, SOUND_HZ * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, samples.length * 2, true);
  samples.forEach((value, index) => view.setInt16(44 + index * 2, Math.max(-1, Math.min(1, value)) * 32_767, true));
  return new Uint8Array(view.buffer);
}

async function bytes(blob: Blob): Promise<Uint8Array> {
  if (blob.size > LARGEST) throw new Error(t.ask.tooLarge(LARGEST / 1e6));
  return new Uint8Array(await blob.arrayBuffer());
}

export function base64(data: Uint8Array): string {
  let text = "";
  for (let at = 0; at < data.length; at += 32_768) text += String.fromCharCode(...data.subarray(at, at + 32_768));
  return btoa(text);
}
