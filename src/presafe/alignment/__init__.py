"""Stage 3: LoRA on the next-token loss plus λ times the loss of the decision before the CoT.

loss      the auxiliary loss, a pure function
head      the auxiliary linear head: attached, saved apart
rows      alignment queries as token ids, labels, decision position and soft target
labels    where p' is from: the classifier, or what stands in its place in an ablation or a control
order     near lengths within a forward pass, all kinds within a step
trainer   `PreSafeConfig`, `PreSafeTrainer`
export    a plain adapter, without a trace of the head
fit       one training from a recipe, resumable
"""
